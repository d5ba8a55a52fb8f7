//! Where a repository comes from, and how its credentials stay secret.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::HeaderValue;
use cachewfs_format::RepoName;

use super::credentials::{Credentials, Login};
use super::{CredentialError, Git, GitError};
use crate::percent::decode_percent;

/// The URL of a repository upstream, with what may be shown kept apart from what may not.
#[derive(Clone)]
pub(crate) struct Upstream {
    /// Without credentials: for command lines, archives and logs.
    url: String,
    /// The bases without and with credentials, if the configuration has some.
    secret: Option<(String, String)>,
    /// What to show, if that is configured apart from the URL, and of which repository.
    credentials: Option<(Arc<Credentials>, String)>,
    /// For requests of the daemon's own. It follows no redirects.
    client: reqwest::Client,
}

/// Prints what is in the environment, so that the command line has no secret.
const HELPER: &str = "!f() { test \"$1\" = get || exit 0; printf 'username=%s\\npassword=%s\\n' \
                      \"$CACHEWFS_UPSTREAM_USER\" \"$CACHEWFS_UPSTREAM_SECRET\"; }; f";

/// How git gets at credentials; all of it goes through the environment.
#[derive(Default)]
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
        upstreams: &BTreeMap<String, String>,
        client: &reqwest::Client,
    ) -> Option<Self> {
        let base = upstreams.get(repo.host())?.trim_end_matches('/');
        let plain = without_credentials(base);
        Some(Self {
            url: format!("{plain}/{}", repo.path()),
            secret: (plain != base).then(|| (format!("{plain}/"), format!("{base}/"))),
            credentials: None,
            client: client.clone(),
        })
    }

    /// Returns the HTTP client that asks upstream.
    pub(super) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The URL without credentials.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Host and port in the URL; "" for a directory.
    pub(crate) fn authority(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }

    /// The URL with the credentials of the configuration, if there are some: for requests only.
    pub(crate) fn secret_url(&self) -> String {
        match &self.secret {
            Some((plain, secret)) => self.url.replacen(plain, secret, 1),
            None => self.url.clone(),
        }
    }

    /// Where the repository is, if it is on this machine; git may find it there with `.git` added.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        let url = reqwest::Url::parse(&self.url).ok()?;
        (url.scheme() == "file").then(|| url.to_file_path().ok())?
    }

    /// The same upstream, which is shown `credentials`.
    pub(crate) fn with_credentials(mut self, credentials: Arc<Credentials>, path: &str) -> Self {
        self.credentials = Some((credentials, path.to_owned()));
        self
    }

    /// What a request over HTTP shows as `Authorization`, beside what is in the URL; fetched now.
    pub(crate) async fn authorization(&self) -> Result<Option<HeaderValue>, CredentialError> {
        Ok(self.login().await?.and_then(|login| login.to_header()))
    }

    async fn login(&self) -> Result<Option<Login>, CredentialError> {
        match &self.credentials {
            Some((credentials, path)) => credentials.login(path).await,
            None => Ok(None),
        }
    }

    /// What one git command shows; fetched now. Blocks the thread, as git does.
    pub(super) fn git_secrets(&self, git: &Git) -> Result<GitSecrets, GitError> {
        let login = git.wait_for(self.login()).map_err(GitError::Credentials)?;
        Ok(self.secrets_of(login))
    }

    fn secrets_of(&self, login: Option<Login>) -> GitSecrets {
        let mut secrets = GitSecrets::default();
        if let Some((plain, secret)) = &self.secret {
            let key = format!("url.{secret}.insteadOf");
            secrets.config.push((key, plain.clone()));
        }
        self.add_login(&mut secrets, login);
        secrets
    }

    /// What git-lfs shows; fetched now, and without a URL with a password in it: that would get into
    /// command lines, as git-lfs writes into the configuration what it found out about a URL.
    pub(super) fn lfs_secrets(&self, git: &Git) -> Result<GitSecrets, GitError> {
        let login = git.wait_for(self.login()).map_err(GitError::Credentials)?;
        let mut secrets = GitSecrets::default();
        self.add_login(&mut secrets, login.or_else(|| self.login_in_url()));
        Ok(secrets)
    }

    fn login_in_url(&self) -> Option<Login> {
        let (_, secret) = self.secret.as_ref()?;
        let url = reqwest::Url::parse(secret).ok()?;
        Some(Login {
            user: decode_percent(url.username())?,
            secret: decode_percent(url.password().unwrap_or_default())?,
        })
    }

    fn add_login(&self, secrets: &mut GitSecrets, login: Option<Login>) {
        let origin = reqwest::Url::parse(&self.url).ok();
        let origin = origin.map(|url| url.origin().ascii_serialization());
        if let (Some(login), Some(origin)) = (login, origin) {
            let key = format!("credential.{origin}.helper");
            // The operator's helpers don't come before it.
            secrets.config.push((key.clone(), String::new()));
            secrets.config.push((key, HELPER.to_owned()));
            // Otherwise the first request of each command would be in vain.
            let proactive = format!("http.{origin}.proactiveAuth");
            secrets.config.push((proactive, "basic".to_owned()));
            secrets
                .variables
                .push(("CACHEWFS_UPSTREAM_USER", login.user));
            secrets
                .variables
                .push(("CACHEWFS_UPSTREAM_SECRET", login.secret));
        }
    }
}

fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (host, path) = rest
        .split_once('/')
        .map_or((rest, None), |(host, path)| (host, Some(path)));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    match path {
        Some(path) => format!("{scheme}://{host}/{path}"),
        None => format!("{scheme}://{host}"),
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

    fn upstream_at(base: &str) -> Upstream {
        let repo = RepoName::parse("example.com/org/repo").unwrap();
        let upstreams = [("example.com".to_owned(), base.to_owned())].into();
        Upstream::of(&repo, &upstreams, &reqwest::Client::new()).unwrap()
    }

    #[test]
    fn credentials_are_only_in_the_secret_configuration() {
        let base = "https://me:s3cret@git.example.com/base/";

        let upstream = upstream_at(base);

        assert_eq!(upstream.url(), "https://git.example.com/base/org/repo");
        assert!(!format!("{upstream:?}").contains("s3cret"));
        assert_eq!(
            upstream.secret_url(),
            "https://me:s3cret@git.example.com/base/org/repo"
        );
        assert_eq!(
            upstream.secrets_of(None).config,
            [(
                "url.https://me:s3cret@git.example.com/base/.insteadOf".to_owned(),
                "https://git.example.com/base/".to_owned()
            )]
        );
    }

    #[test]
    fn git_lfs_gets_no_url_with_credentials() {
        let base = "https://me:s3%40cret@git.example.com/base/";
        let upstream = upstream_at(base);

        let mut secrets = GitSecrets::default();
        upstream.add_login(&mut secrets, upstream.login_in_url());

        assert!(
            secrets
                .config
                .iter()
                .all(|(key, value)| !format!("{key}={value}").contains("s3"))
        );
        let secret = ("CACHEWFS_UPSTREAM_SECRET", "s3@cret".to_owned());
        assert!(secrets.variables.contains(&secret));
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
