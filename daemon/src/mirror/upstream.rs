//! Where a repository comes from, and how its credentials stay secret.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderValue;
use cachewfs_format::RepoName;

use super::credentials::{Credentials, Login};
use super::{CredentialError, Git, GitError};
use crate::config::UpstreamConfig;

/// A repository upstream, with what may be shown kept apart from what may not.
#[derive(Clone)]
pub(crate) struct Upstream {
    repo: RepoName,
    /// Without credentials: for command lines, archives and logs.
    url: String,
    /// Where upstream said that the repository is, if it is another URL.
    place: Arc<Mutex<Option<String>>>,
    ignores_case: bool,
    /// The credentials that the configuration has in the URL.
    login: Option<Login>,
    /// The credentials that are configured apart from the URL. They go before those in the URL.
    credentials: Option<Arc<Credentials>>,
    /// For requests of the daemon's own. It follows no redirects.
    client: reqwest::Client,
}

/// Prints what is in the environment, so that the command line has no secret.
const HELPER: &str = "!f() { test \"$1\" = get || exit 0; printf 'username=%s\\npassword=%s\\n' \
                      \"$CACHEWFS_UPSTREAM_USER\" \"$CACHEWFS_UPSTREAM_SECRET\"; }; f";

/// Settings that keep git at the URL that it is given, whatever upstream answers.
/// `http.followRedirects=false` is also about alternates of the old HTTP protocol
/// (`objects/info/http-alternates`). The others are git's defaults so far.
const STAY: &[(&str, &str)] = &[
    ("http.followRedirects", "false"),
    ("transfer.bundleURI", "false"),
    ("fetch.uriProtocols", ""),
    ("promisor.acceptFromServer", "none"),
];

/// How git talks to an upstream: with which credentials, and to no other place. All of it goes
/// through the environment.
pub(crate) struct GitSecrets {
    /// Keys and values of git's configuration.
    pub(super) config: Vec<(String, String)>,
    pub(super) variables: Vec<(&'static str, String)>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Upstream({})", self.url)
    }
}

impl Upstream {
    /// Returns the upstream of `repo`; `None` if its host is not among the configured `upstreams`.
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
            place: Arc::default(),
            ignores_case: config.ignores_case(repo.host()),
            login: config.login().cloned(),
            credentials: None,
            client: client.clone(),
        })
    }

    /// Returns the HTTP client that asks upstream.
    pub(super) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The repository that is mirrored.
    pub(crate) fn repo(&self) -> &RepoName {
        &self.repo
    }

    /// The URL in the configuration, without credentials.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The URL to ask, without credentials: the configured one, unless upstream named another.
    pub(crate) fn place(&self) -> String {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place.as_ref().unwrap_or(&self.url).clone()
    }

    /// Notes where upstream says that the repository is.
    pub(super) fn set_place(&self, url: String) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(url);
    }

    /// Takes over what `before` knows of the place, if that has the same URL.
    pub(crate) fn after(mut self, before: &Self) -> Self {
        if self.url == before.url {
            self.place = Arc::clone(&before.place);
        }
        self
    }

    /// Returns the one spelling of a name that upstream uses for a repository.
    pub(super) fn canonical(&self, repo: RepoName) -> RepoName {
        if self.ignores_case {
            repo.to_lower_case()
        } else {
            repo
        }
    }

    /// Host and port in the URL; "" for a directory.
    pub(crate) fn authority(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }

    /// Where the repository is, if it is on this machine; git may find it there with `.git` added.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        let url = reqwest::Url::parse(&self.url).ok()?;
        (url.scheme() == "file").then(|| url.to_file_path().ok())?
    }

    /// The same upstream, which is shown `credentials`.
    pub(crate) fn with_credentials(mut self, credentials: Arc<Credentials>) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Fetches the value of `Authorization` for a request over HTTP.
    pub(crate) async fn authorization(&self) -> Result<Option<HeaderValue>, CredentialError> {
        Ok(self.login().await?.and_then(|login| login.to_header()))
    }

    async fn login(&self) -> Result<Option<Login>, CredentialError> {
        match &self.credentials {
            Some(credentials) => credentials.login(self.repo.path()).await,
            None => Ok(self.login.clone()),
        }
    }

    /// Returns how one git command talks to upstream; fetches the credentials now. Blocks the
    /// thread, as git does.
    pub(super) fn git_secrets(&self, git: &Git) -> Result<GitSecrets, GitError> {
        let login = git.wait_for(self.login()).map_err(GitError::Credentials)?;
        Ok(self.secrets_of(login))
    }

    fn secrets_of(&self, login: Option<Login>) -> GitSecrets {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut config: Vec<_> = STAY.iter().map(|(key, value)| pair(key, value)).collect();
        let mut variables = Vec::new();
        let origin = reqwest::Url::parse(&self.url).ok();
        let origin = origin.map(|url| url.origin().ascii_serialization());
        if let (Some(login), Some(origin)) = (login, origin) {
            let key = format!("credential.{origin}.helper");
            // The operator's helpers don't come before it.
            config.push(pair(&key, ""));
            config.push(pair(&key, HELPER));
            // Otherwise the first request of each command would be in vain.
            config.push(pair(&format!("http.{origin}.proactiveAuth"), "basic"));
            variables.push(("CACHEWFS_UPSTREAM_USER", login.user));
            variables.push(("CACHEWFS_UPSTREAM_SECRET", login.secret));
        }
        GitSecrets { config, variables }
    }
}

/// Replaces the credentials of all URLs in `text` by `***`.
pub(crate) fn redact(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    for (index, part) in text.split("://").enumerate() {
        if index == 0 {
            redacted.push_str(part);
            continue;
        }
        redacted.push_str("://");
        let is_end = |letter: char| letter == '/' || letter == '\'' || letter.is_whitespace();
        let authority = part.split(is_end).next().unwrap_or_default();
        match authority.rsplit_once('@') {
            Some((credentials, _)) => {
                redacted.push_str("***");
                redacted.push_str(part.strip_prefix(credentials).unwrap_or_default());
            }
            None => redacted.push_str(part),
        }
    }
    redacted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_in_variables_alone() {
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

    #[test]
    fn redacts_every_url_of_a_text() {
        let text = "fatal: 'https://a:b@x.org/y' and http://c@z/ but not file:///d@e or f@g";

        assert_eq!(
            redact(text),
            "fatal: 'https://***@x.org/y' and http://***@z/ but not file:///d@e or f@g"
        );
    }
}
