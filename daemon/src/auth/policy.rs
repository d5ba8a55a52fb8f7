//! Policies in Rego, evaluated in this process within a time limit.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};
use serde::Serialize;

/// The policy of a daemon whose configuration names none.
const DEFAULT: &str = include_str!("default.rego");
const PACKAGE: &str = "data.cachewfs";
/// How long a policy may take for one request before it has failed. The default policy takes some
/// 0.1 ms.
const TIME_LIMIT: Duration = Duration::from_millis(100);
/// How many evaluation steps pass between two looks at the clock.
const CLOCK_INTERVAL: NonZeroU32 = NonZeroU32::new(64).expect("64 is not zero");

/// The action that a request is about to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// Read repositories, have their mirrors updated, read from upstream.
    Read,
    /// Change something upstream, with the client's own credentials.
    Push,
    /// Read metrics and the status page.
    Metrics,
    /// Every other request.
    Admin,
}

impl Action {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Push => "push",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

/// The `input` document of a policy: everything that a decision may depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct PolicyInput {
    pub(crate) subject: String,
    pub(crate) groups: Vec<String>,
    pub(crate) action: Action,
    pub(crate) host: String,
    pub(crate) repo: String,
    pub(crate) method: String,
    pub(crate) client_ip: String,
    pub(crate) is_loopback: bool,
}

/// The decision of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Allowed,
    Denied,
    /// Denied, and the answer is that for a repository that doesn't exist.
    Hidden,
}

/// The reason why a policy can't be used or can't decide.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file can't be read.
    #[error("can't read the file")]
    Read(#[from] std::io::Error),
    /// The text is not a valid policy.
    #[error("the policy is not valid Rego: {0}")]
    Parse(String),
    /// The evaluation failed or took too long.
    #[error("evaluating the policy failed: {0}")]
    Failed(String),
    /// The result is neither true nor false.
    #[error(
        "`allow` and `hide` in `package cachewfs` must be true or false; `allow` must be defined"
    )]
    NotBoolean,
}

/// A compiled policy.
#[derive(Debug)]
pub(crate) struct Policy(Engine);

impl Policy {
    pub(super) fn built_in() -> Result<Self, PolicyError> {
        Self::parse("default.rego", DEFAULT)
    }

    pub(super) fn read(path: &Path) -> Result<Self, PolicyError> {
        Self::parse(&path.display().to_string(), &std::fs::read_to_string(path)?)
    }

    /// Parses and compiles a policy, and evaluates it once, so that mistakes show when it is
    /// loaded.
    fn parse(name: &str, text: &str) -> Result<Self, PolicyError> {
        let failed = |error: &dyn std::fmt::Display| PolicyError::Parse(error.to_string());
        let mut engine = Engine::new();
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: TIME_LIMIT,
            check_interval: CLOCK_INTERVAL,
        });
        // As in OPA: if a built-in function fails, its expression is undefined.
        engine.set_strict_builtin_errors(false);
        let added = engine.add_policy(name.to_owned(), text.to_owned());
        added.map_err(|error| failed(&error))?;
        let anonymous = PolicyInput {
            subject: String::new(),
            groups: Vec::new(),
            action: Action::Admin,
            host: "example.com".to_owned(),
            repo: "example.com/org/repo".to_owned(),
            method: "GET".to_owned(),
            client_ip: "192.0.2.1".to_owned(),
            is_loopback: false,
        };
        decide(&mut engine, &anonymous)?;
        Ok(Self(engine))
    }

    pub(super) fn decide(&self, input: &PolicyInput) -> Result<Decision, PolicyError> {
        // A clone shares the compiled policy, so that evaluations don't wait for each other.
        decide(&mut self.0.clone(), input)
    }
}

fn decide(engine: &mut Engine, input: &PolicyInput) -> Result<Decision, PolicyError> {
    let failed = |error: &dyn std::fmt::Display| PolicyError::Failed(error.to_string());
    let input = serde_json::to_string(input).map_err(|error| failed(&error))?;
    let input = Value::from_json_str(&input).map_err(|error| failed(&error))?;
    engine.set_input(input);
    let results = engine.eval_query(PACKAGE.to_owned(), false);
    let mut results = results.map_err(|error| failed(&error))?;
    let package = results
        .result
        .pop()
        .and_then(|mut result| result.expressions.pop())
        .map_or(Value::Undefined, |expression| expression.value);
    let is = |name: &str| match &package[name] {
        Value::Bool(is) => Ok(Some(*is)),
        Value::Undefined => Ok(None),
        _ => Err(PolicyError::NotBoolean),
    };
    Ok(
        match (is("allow")?.ok_or(PolicyError::NotBoolean)?, is("hide")?) {
            (true, _) => Decision::Allowed,
            (false, Some(true)) => Decision::Hidden,
            (false, Some(false) | None) => Decision::Denied,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(action: Action, is_loopback: bool, groups: &[&str]) -> PolicyInput {
        PolicyInput {
            subject: "alice".to_owned(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            action,
            host: "h.org".to_owned(),
            repo: "h.org/private/x".to_owned(),
            method: "GET".to_owned(),
            client_ip: "10.1.2.3".to_owned(),
            is_loopback,
        }
    }

    #[test]
    fn the_default_policy_lets_all_read_and_push_and_only_this_machine_administer() {
        let policy = Policy::built_in().unwrap();
        let decide = |action, is_loopback, groups: &[&str]| {
            policy.decide(&input(action, is_loopback, groups)).unwrap()
        };

        for action in [Action::Read, Action::Push, Action::Metrics] {
            assert_eq!(decide(action, false, &[]), Decision::Allowed);
        }
        assert_eq!(decide(Action::Admin, false, &["ci"]), Decision::Denied);
        assert_eq!(decide(Action::Admin, true, &[]), Decision::Allowed);
        assert_eq!(decide(Action::Admin, false, &["admin"]), Decision::Allowed);
    }

    #[test]
    fn a_configured_policy_sees_the_whole_input() {
        let text = "package cachewfs
            import rego.v1
            default allow := false
            allow if { input.action == \"read\"; \"x\" in input.groups }
            allow if { net.cidr_contains(\"10.0.0.0/8\", input.client_ip); input.method == \"PUT\" }
            hide if startswith(input.repo, \"h.org/private/\")";
        let policy = Policy::parse("own", text).unwrap();
        let decide = |input: &PolicyInput| policy.decide(input).unwrap();

        assert_eq!(
            decide(&input(Action::Read, false, &["x"])),
            Decision::Allowed
        );
        assert_eq!(decide(&input(Action::Read, true, &[])), Decision::Hidden);
        let mut put = input(Action::Push, false, &[]);
        put.method = "PUT".to_owned();
        assert_eq!(decide(&put), Decision::Allowed);
        put.client_ip = "11.0.0.1".to_owned();
        put.repo = "h.org/x".to_owned();
        assert_eq!(decide(&put), Decision::Denied);
    }

    #[test]
    fn the_documented_examples_are_valid_policies() {
        let page = include_str!("../../../docs/security.md");
        let examples: Vec<_> = page.split("```rego\n").skip(1).collect();

        for example in &examples {
            let (text, _) = example.split_once("```").unwrap();
            let policy = Policy::parse("example", text).unwrap();
            let read = policy.decide(&input(Action::Read, false, &["team"]));
            assert_eq!(read.unwrap(), Decision::Allowed, "{text}");
            let admin = policy.decide(&input(Action::Admin, false, &["team"]));
            assert_eq!(admin.unwrap(), Decision::Denied, "{text}");
        }
        assert_eq!(examples.len(), 2);
    }

    #[test]
    fn invalid_policies_are_refused() {
        for bad in [
            "",
            "package cachewfs\nallow if",
            "package other\nallow := true",
            "package cachewfs\nallow := 1",
            "package cachewfs\nimport rego.v1\nallow if input.subject == \"x\"",
            "package cachewfs\nallow := true\nhide := \"yes\"",
            "package cachewfs\nallow := http.send({})",
        ] {
            assert!(Policy::parse("bad", bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_slow_policy_is_stopped() {
        let endless = "package cachewfs
            import rego.v1
            default allow := false
            numbers := numbers.range(1, 3000)
            allow if { some a in numbers; some b in numbers; some c in numbers; a + b + c == 0 }";
        let began = std::time::Instant::now();

        let parsed = Policy::parse("endless", endless);

        assert!(matches!(parsed, Err(PolicyError::Failed(_))), "{parsed:?}");
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
