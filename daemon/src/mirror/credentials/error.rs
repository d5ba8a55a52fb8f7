//! Why there are no credentials for upstream.

use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;

/// Why there are no credentials for upstream. Contains no secrets.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The section names no source of credentials, or more than one.
    #[error(
        "[upstream_auth.{host:?}] needs exactly one of token_env, token_file, \
         and app_id with private_key_file"
    )]
    Ambiguous {
        /// The section.
        host: String,
    },
    /// The section is about a host that is not mirrored over HTTP.
    #[error(
        "[upstream_auth.{host:?}] names a host that [upstreams] doesn't have \
         with an http or https URL"
    )]
    NoSuchHost {
        /// The section.
        host: String,
    },
    /// The variable is not set, or has no valid token.
    #[error("the environment variable {name} has no token: set it to visible ASCII characters")]
    Variable {
        /// The name of the variable.
        name: String,
    },
    /// The file can't be read.
    #[error("can't read the token file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// The file has no token.
    #[error("{path} has no token: it must have one line of visible ASCII characters")]
    NoToken {
        /// The file.
        path: PathBuf,
    },
    /// The private key can't be used.
    #[error("{path} has no private RSA key that can be read")]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The clock or the random numbers of this machine don't work.
    #[error("can't sign a request to GitHub")]
    Signature,
    /// GitHub can't be reached.
    #[error("can't reach GitHub's API")]
    Request(#[source] reqwest::Error),
    /// GitHub refuses the request.
    #[error("GitHub's API answered {status} to the request for {what}")]
    Refused {
        /// The requested resource.
        what: &'static str,
        /// GitHub's status.
        status: StatusCode,
    },
    /// GitHub's response can't be parsed.
    #[error("can't parse GitHub's response to the request for {what}")]
    BadResponse {
        /// The requested resource.
        what: &'static str,
    },
    /// GitHub failed recently, and the backoff isn't over.
    #[error(
        "GitHub's API failed: {last}; the next try is in {}",
        humantime::format_duration(round_up(*.left))
    )]
    Backoff {
        /// How long until the next request.
        left: Duration,
        /// The last failure.
        last: String,
    },
    /// GitHub takes too long to answer.
    #[error("GitHub's API took longer than {}", humantime::format_duration(*.limit))]
    TooSlow {
        /// The timeout.
        limit: Duration,
    },
}

impl CredentialError {
    /// Returns whether the configuration itself is wrong, so that the daemon can't start with it.
    pub(crate) fn is_of_configuration(&self) -> bool {
        matches!(self, Self::Ambiguous { .. } | Self::NoSuchHost { .. })
    }
}

/// Rounds up to whole seconds, for messages.
fn round_up(left: Duration) -> Duration {
    Duration::from_secs(left.as_secs() + 1)
}
