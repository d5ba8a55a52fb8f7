//! The sources of secrets for upstream: an environment variable, a file or a GitHub App.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode};

use super::UpstreamAuthConfig;
use super::github_app::GithubApp;
use crate::mirror::UpstreamConfig;

/// At most this many bytes of a token file are read.
const MAX_TOKEN_LEN: u64 = 16 << 10;

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

/// The user name and secret that the daemon sends to upstream.
#[derive(Clone, PartialEq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) secret: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Login({})", self.user)
    }
}

impl Login {
    /// Returns the login as the value of an `Authorization` header.
    pub(crate) fn to_header(&self) -> Option<HeaderValue> {
        let pair = STANDARD.encode(format!("{}:{}", self.user, self.secret));
        let mut value = HeaderValue::from_str(&format!("Basic {pair}")).ok()?;
        // A sensitive value is not printed with the other headers of a request.
        value.set_sensitive(true);
        Some(value)
    }
}

/// The credentials for one host.
#[derive(Debug)]
pub(crate) struct Credentials {
    user: String,
    source: SecretSource,
}

#[derive(Debug)]
enum SecretSource {
    Variable(String),
    File(PathBuf),
    App(Box<GithubApp>),
}

impl Credentials {
    /// Opens the credentials of all sections. Fails if a section has no usable source.
    pub(crate) fn open_all(
        sections: &BTreeMap<String, UpstreamAuthConfig>,
        upstreams: &BTreeMap<String, UpstreamConfig>,
    ) -> Result<BTreeMap<String, Arc<Self>>, CredentialError> {
        let open = |(host, config): (&String, &UpstreamAuthConfig)| {
            let base = upstreams.get(host);
            if base.is_none_or(|base| !base.url().starts_with("http")) {
                return Err(CredentialError::NoSuchHost { host: host.clone() });
            }
            Ok((host.clone(), Arc::new(Self::open(host, config)?)))
        };
        sections.iter().map(open).collect()
    }

    fn open(host: &str, config: &UpstreamAuthConfig) -> Result<Self, CredentialError> {
        let source = match (
            &config.token_env,
            &config.token_file,
            &config.app_id,
            &config.private_key_file,
        ) {
            (Some(name), None, None, None) => {
                // Read now, so that a missing token fails the start and not the first update.
                variable(name)?;
                SecretSource::Variable(name.clone())
            }
            (None, Some(path), None, None) => {
                read_token(path)?;
                SecretSource::File(path.clone())
            }
            (None, None, Some(id), Some(key)) => {
                SecretSource::App(Box::new(GithubApp::open(id, key, config)?))
            }
            _ => {
                let host = host.to_owned();
                return Err(CredentialError::Ambiguous { host });
            }
        };
        let user = config.username.clone();
        Ok(Self { user, source })
    }

    /// Returns the login for the repository at `path`. Returns `None` if a GitHub App is not
    /// installed there, so that only public repositories can be read.
    pub(crate) async fn login(&self, path: &str) -> Result<Option<Login>, CredentialError> {
        let secret = match &self.source {
            SecretSource::Variable(name) => Some(variable(name)?),
            SecretSource::File(path) => Some(read_token(path)?),
            SecretSource::App(app) => {
                let owner = path.split('/').next().unwrap_or_default();
                app.token(owner).await?
            }
        };
        let user = self.user.clone();
        Ok(secret.map(|secret| Login { user, secret }))
    }
}

fn variable(name: &str) -> Result<String, CredentialError> {
    let token = std::env::var(name).ok().filter(|token| is_token(token));
    token.ok_or_else(|| CredentialError::Variable {
        name: name.to_owned(),
    })
}

fn read_token(path: &Path) -> Result<String, CredentialError> {
    use std::io::Read as _;
    let unreadable = |source| CredentialError::File {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(MAX_TOKEN_LEN)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    let token = text.trim();
    let none = || CredentialError::NoToken {
        path: path.to_owned(),
    };
    is_token(token).then(|| token.to_owned()).ok_or_else(none)
}

/// Returns whether `token` is safe to send: in git's credential protocol, each value is one line.
fn is_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}
