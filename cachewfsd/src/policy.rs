//! Policies in Rego, evaluated in this process within a time limit.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use cachewfs_daemon::{Action, Decision, Policy, PolicyError, PolicyInput};
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};

const PACKAGE: &str = "data.cachewfs";
/// How long a policy may take for one request before it has failed. A policy of a few rules takes
/// some 0.1 ms.
const TIME_LIMIT: Duration = Duration::from_millis(100);
/// How many evaluation steps pass between two looks at the clock.
const CLOCK_INTERVAL: NonZeroU32 = NonZeroU32::new(64).expect("64 is not zero");

/// Reads and compiles the policy in a file.
pub(crate) fn read_policy(path: &Path) -> Result<Box<dyn Policy>, PolicyError> {
    let text = std::fs::read_to_string(path)?;
    Ok(Box::new(Rego::parse(&path.display().to_string(), &text)?))
}

/// A compiled policy.
#[derive(Debug)]
struct Rego(Engine);

impl Rego {
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
}

impl Policy for Rego {
    fn decide(&self, input: &PolicyInput) -> Result<Decision, PolicyError> {
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
    use cachewfs_daemon::DefaultPolicy;

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

    /// The default policy, for operators who start their own from it.
    const DEFAULT: &str = include_str!("../../packaging/default.rego");

    #[test]
    fn the_default_policy_lets_all_read_and_push_and_only_this_machine_administer() {
        let in_rego = Rego::parse("default.rego", DEFAULT).unwrap();
        let decide = |action, is_loopback, groups: &[&str]| {
            let input = input(action, is_loopback, groups);
            let decision = DefaultPolicy.decide(&input).unwrap();
            assert_eq!(decision, in_rego.decide(&input).unwrap(), "{input:?}");
            decision
        };

        for groups in [&[][..], &["ci"], &["admin"], &["ci", "admin"]] {
            for action in [Action::Read, Action::Push, Action::Metrics] {
                for is_loopback in [false, true] {
                    assert_eq!(decide(action, is_loopback, groups), Decision::Allowed);
                }
            }
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
        let policy = Rego::parse("own", text).unwrap();
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
        let page = include_str!("../../docs/security.md");
        let examples: Vec<_> = page.split("```rego\n").skip(1).collect();

        for example in &examples {
            let (text, _) = example.split_once("```").unwrap();
            let policy = Rego::parse("example", text).unwrap();
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
            assert!(Rego::parse("bad", bad).is_err(), "{bad:?} was accepted");
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

        let parsed = Rego::parse("endless", endless);

        assert!(matches!(parsed, Err(PolicyError::Failed(_))), "{parsed:?}");
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
