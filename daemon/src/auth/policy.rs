//! [`Policy`]: decides what a caller may do. The program that starts the daemon reads policies of
//! operators; the default policy is here.

use std::fmt::Debug;
use std::path::Path;

use serde::Serialize;

/// Reads the policy in a file.
pub type ReadPolicy = fn(&Path) -> Result<Box<dyn Policy>, PolicyError>;

/// Decides what callers may do, by nothing but the input.
pub trait Policy: Debug + Send + Sync {
    /// Returns the decision, within a time limit.
    fn decide(&self, input: &PolicyInput) -> Result<Decision, PolicyError>;
}

/// The action that a request is about to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
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
pub struct PolicyInput {
    /// The name of the caller's token; empty without one.
    pub subject: String,
    /// The groups of the token.
    pub groups: Vec<String>,
    /// The action of the request.
    pub action: Action,
    /// The host in the name of the repository; empty if the request names none.
    pub host: String,
    /// The repository; empty if the request names none.
    pub repo: String,
    /// The HTTP method.
    pub method: String,
    /// The address of the client, or of the proxy between it and the daemon.
    pub client_ip: String,
    /// Whether the client is a program on this machine, but not a proxy or a web page.
    pub is_loopback: bool,
}

/// The decision of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The request is answered.
    Allowed,
    /// The request is refused.
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
    /// The program can't read policies.
    #[error("this program reads no policies: only cachewfsd does")]
    Unsupported,
    /// The evaluation failed or took too long.
    #[error("evaluating the policy failed: {0}")]
    Failed(String),
    /// The result is neither true nor false.
    #[error(
        "`allow` and `hide` in `package cachewfs` must be true or false; `allow` must be defined"
    )]
    NotBoolean,
}

/// The policy of a daemon whose configuration names none. `packaging/default.rego` says the same in
/// Rego, for operators who start their own policy from it.
#[derive(Debug)]
pub struct DefaultPolicy;

impl Policy for DefaultPolicy {
    fn decide(&self, input: &PolicyInput) -> Result<Decision, PolicyError> {
        let is_administrator = input.groups.iter().any(|group| group == "admin");
        let is_allowed = match input.action {
            // Upstream decides about pushes: they carry the client's own credentials.
            Action::Read | Action::Push | Action::Metrics => true,
            Action::Admin => input.is_loopback || is_administrator,
        };
        Ok(if is_allowed {
            Decision::Allowed
        } else {
            Decision::Denied
        })
    }
}
