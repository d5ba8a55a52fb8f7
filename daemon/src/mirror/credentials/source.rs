//! The sources of secrets for upstream: an environment variable, a file or a GitHub App.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::github_app::GithubApp;
use super::{CredentialError, Login, UpstreamAuthConfig};
use crate::mirror::UpstreamConfig;

/// At most this many bytes of a token file are read.
const MAX_TOKEN_LEN: u64 = 16 << 10;

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
