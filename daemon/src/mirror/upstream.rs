//! Upstream repositories: their URLs, and how their credentials stay secret.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cachewfs_format::RepoName;
use http::HeaderValue;
use parking_lot::Mutex;

use super::credentials::{Credentials, Login};
use super::git_secrets::GitSecrets;
use super::{CredentialError, Git, GitError, UpstreamConfig};

/// An upstream repository. Keeps the secrets apart from the fields that may be shown.
#[derive(Clone)]
pub(crate) struct Upstream {
    repo: RepoName,
    /// The configured URL without credentials: for command lines, archives and logs.
    url: String,
    /// The URL that upstream named instead, if it named one.
    named_url: Arc<Mutex<Option<String>>>,
    ignores_case: bool,
    /// The credentials in the configured URL.
    login: Option<Login>,
    /// The credentials of an `[upstream_auth]` section. They win over those in the URL.
    credentials: Option<Arc<Credentials>>,
    /// The client for the daemon's own requests. It follows no redirects.
    client: reqwest::Client,
}

/// A credential helper that prints variables of the environment, so that no secret is on a command
/// line.
const CREDENTIAL_HELPER: &str = "!f() { test \"$1\" = get || exit 0; \
     printf 'username=%s\\npassword=%s\\n' \
     \"$CACHEWFS_UPSTREAM_USER\" \"$CACHEWFS_UPSTREAM_SECRET\"; }; f";

/// Settings that make git talk to no other server than the one in the URL, whatever upstream
/// answers.
///
/// `http.followRedirects=false` also stops git from following alternates of the old HTTP protocol
/// (`objects/info/http-alternates`). The other values are git's present defaults.
const NO_OTHER_SERVER: &[(&str, &str)] = &[
    ("http.followRedirects", "false"),
    ("transfer.bundleURI", "false"),
    ("fetch.uriProtocols", ""),
    ("promisor.acceptFromServer", "none"),
];

impl std::fmt::Debug for Upstream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Upstream({})", self.url)
    }
}

impl Upstream {
    /// Returns the upstream of `repo`, or `None` if its host is not among the configured
    /// `upstreams`.
    pub(crate) fn of(
        repo: &RepoName,
        upstreams: &BTreeMap<String, UpstreamConfig>,
        client: &reqwest::Client,
    ) -> Option<Self> {
        let config = upstreams.get(repo.host())?;
        let base = config.url().trim_end_matches('/');
        Some(Self {
            repo: repo.clone(),
            url: format!("{base}/{}", repo.path()),
            named_url: Arc::default(),
            ignores_case: config.ignores_case(repo.host()),
            login: config.login().cloned(),
            credentials: None,
            client: client.clone(),
        })
    }

    /// Returns the HTTP client for requests to upstream.
    pub(super) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Returns the name of the mirrored repository.
    pub(crate) fn repo(&self) -> &RepoName {
        &self.repo
    }

    /// Returns the configured URL, without credentials.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the URL to use, without credentials: the one that upstream named, else the
    /// configured one.
    pub(crate) fn current_url(&self) -> String {
        let named_url = self.named_url.lock();
        named_url.as_ref().unwrap_or(&self.url).clone()
    }

    /// Notes the URL at which upstream has the repository.
    pub(super) fn set_current_url(&self, url: String) {
        *self.named_url.lock() = Some(url);
    }

    /// Takes over the URL that `before` learned from upstream, if both have the same configured
    /// URL.
    pub(crate) fn after(mut self, before: &Self) -> Self {
        if self.url == before.url {
            self.named_url = Arc::clone(&before.named_url);
        }
        self
    }

    /// Returns the canonical spelling of a name: in lower case if upstream ignores case.
    pub(super) fn canonical(&self, repo: RepoName) -> RepoName {
        if self.ignores_case {
            repo.to_lower_case()
        } else {
            repo
        }
    }

    /// Returns host and port of the URL, or "" for a directory.
    pub(crate) fn authority(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }

    /// Returns the directory of an upstream on this machine, else `None`. git may add `.git` to it.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        let url = reqwest::Url::parse(&self.url).ok()?;
        (url.scheme() == "file").then(|| url.to_file_path().ok())?
    }

    /// Returns this upstream with `credentials`.
    pub(crate) fn with_credentials(mut self, credentials: Arc<Credentials>) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Fetches the value of the `Authorization` header for a request over HTTP.
    pub(crate) async fn authorization(&self) -> Result<Option<HeaderValue>, CredentialError> {
        Ok(self.login().await?.and_then(|login| login.to_header()))
    }

    async fn login(&self) -> Result<Option<Login>, CredentialError> {
        match &self.credentials {
            Some(credentials) => credentials.login(self.repo.path()).await,
            None => Ok(self.login.clone()),
        }
    }

    /// Returns the settings and secrets for one git command. Fetches the credentials now, and
    /// blocks the thread meanwhile.
    pub(super) fn git_secrets(&self, git: &Git) -> Result<GitSecrets, GitError> {
        let login = git.wait_for(self.login()).map_err(GitError::Credentials)?;
        Ok(self.secrets_of(login))
    }

    fn secrets_of(&self, login: Option<Login>) -> GitSecrets {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut config: Vec<_> = NO_OTHER_SERVER
            .iter()
            .map(|(key, value)| pair(key, value))
            .collect();
        let mut variables = Vec::new();
        // The key has the origin, so git offers these credentials to no other server.
        let origin = reqwest::Url::parse(&self.url).ok();
        let origin = origin.map(|url| url.origin().ascii_serialization());
        if let (Some(login), Some(origin)) = (login, origin) {
            let key = format!("credential.{origin}.helper");
            // An empty value resets the list, so that no helper of the operator's runs first.
            config.push(pair(&key, ""));
            config.push(pair(&key, CREDENTIAL_HELPER));
            // Without this, git would first send each request anonymously and get a 401.
            config.push(pair(&format!("http.{origin}.proactiveAuth"), "basic"));
            variables.push(("CACHEWFS_UPSTREAM_USER", login.user));
            variables.push(("CACHEWFS_UPSTREAM_SECRET", login.secret));
        }
        GitSecrets { config, variables }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_only_in_variables() {
        let repo = RepoName::parse("example.com/org/repo").unwrap();
        let base = "https://me:s3%40cret@git.example.com/base/".to_owned();
        let upstreams = [("example.com".to_owned(), base.into())].into();
        let upstream = Upstream::of(&repo, &upstreams, &reqwest::Client::new()).unwrap();

        assert_eq!(upstream.url(), "https://git.example.com/base/org/repo");
        assert!(!format!("{upstream:?}").contains("s3"));
        let secrets = upstream.secrets_of(upstream.login.clone());
        let has_secret = |(key, value): &(String, String)| format!("{key}={value}").contains("s3");
        assert!(!secrets.config.iter().any(has_secret));
        let secret = ("CACHEWFS_UPSTREAM_SECRET", "s3@cret".to_owned());
        assert!(secrets.variables.contains(&secret));
        let stay = ("http.followRedirects".to_owned(), "false".to_owned());
        assert!(secrets.config.contains(&stay));
        assert!(upstream.secrets_of(None).config.contains(&stay));
    }
}
