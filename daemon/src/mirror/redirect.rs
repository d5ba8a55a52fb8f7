//! Redirects of an upstream: followed only below its base URL, and only to a repository.
//!
//! A redirected request carries the daemon's credentials, and the response goes to clients. So a
//! redirect must lead neither to another server nor to a path that clients couldn't ask for.

use cachewfs_format::RepoName;
use http::{HeaderMap, StatusCode, header};
use reqwest::Url;

use super::Upstream;
use crate::base::decode_percent;

/// At most this many redirects of one request are followed.
pub(crate) const MAX_REDIRECTS: usize = 3;

/// The base URL of all repositories of one host.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamBase {
    upstream: Upstream,
    /// Ends with a slash and has no credentials.
    url: Url,
}

/// The repository that a redirect leads to, under the name that upstream gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedirectTarget {
    pub(crate) repo: RepoName,
    /// Whether the name ends with `.git` in the URL.
    pub(crate) has_git_suffix: bool,
}

impl UpstreamBase {
    /// Returns the base URL of `upstream`, or `None` if upstream isn't an HTTP server.
    pub(crate) fn of(upstream: &Upstream) -> Option<Self> {
        Self::below(upstream, upstream.url())
    }

    /// Returns the base URL in `url`, which is the URL that git uses for `upstream`.
    pub(super) fn below(upstream: &Upstream, url: &str) -> Option<Self> {
        let base = url.strip_suffix(upstream.repo().path())?;
        let url = Url::parse(base).ok()?;
        let is_http = matches!(url.scheme(), "http" | "https") && url.path().ends_with('/');
        is_http.then(|| Self {
            upstream: upstream.clone(),
            url,
        })
    }

    /// Returns the host in the names of repositories, which is the key in the configuration.
    pub(crate) fn host(&self) -> &str {
        self.upstream.repo().host()
    }

    /// Returns the URL to which a response to a request for `from` redirects, if it is below this
    /// base. The headers of the request may be sent only there.
    pub(crate) fn follow(&self, from: &Url, headers: &HeaderMap) -> Option<Url> {
        let location = headers.get(header::LOCATION)?.to_str().ok()?;
        let mut to = from.join(location).ok()?;
        // A redirect must not choose the user and password that the daemon sends.
        to.set_username("").ok()?;
        to.set_password(None).ok()?;
        self.path_below(&to).is_some().then_some(to)
    }

    /// Returns the repository at `url`, which must end with `tail` (such as `/info/refs`).
    pub(crate) fn target(&self, url: &Url, tail: &str) -> Option<RedirectTarget> {
        let path = self.path_below(url)?.strip_suffix(tail)?;
        // A decoded slash would add a level to the name that the server doesn't see in the URL.
        let segment = |segment: &str| decode_percent(segment).filter(|it| !it.contains('/'));
        let segments: Option<Vec<String>> = path.split('/').map(segment).collect();
        let name = segments?.join("/");
        let repo = RepoName::parse(&format!("{}/{name}", self.host())).ok()?;
        Some(RedirectTarget {
            repo: self.upstream.canonical(repo),
            has_git_suffix: name.strip_suffix(".git").is_some(),
        })
    }

    /// Returns whether `target` is the repository of this upstream.
    pub(crate) fn is_own(&self, target: &RedirectTarget) -> bool {
        target.repo == *self.upstream.repo()
    }

    fn path_below<'a>(&self, url: &'a Url) -> Option<&'a str> {
        // `Url` has resolved `..` already, so a prefix is enough. The origin includes the scheme
        // and the port: nothing is sent over http that was meant for https.
        let path = url.path().strip_prefix(self.url.path())?;
        (url.origin() == self.url.origin()).then_some(path)
    }
}

/// Returns whether a status redirects the request.
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(ignore_case: bool) -> UpstreamBase {
        let repo = RepoName::parse("example.com/org/repo").unwrap();
        let url = "https://git.example.com/base".to_owned();
        let config = crate::mirror::UpstreamConfig::from(url).with_ignore_case(ignore_case);
        let upstreams = [("example.com".to_owned(), config)].into();
        let upstream = Upstream::of(&repo, &upstreams, &reqwest::Client::new());
        UpstreamBase::of(&upstream.unwrap()).unwrap()
    }

    #[test]
    fn only_urls_below_the_base_name_a_repository() {
        let target = |url: &str| base(false).target(&Url::parse(url).unwrap(), "/info/refs");

        let expected = RedirectTarget {
            repo: RepoName::parse("example.com/A/b").unwrap(),
            has_git_suffix: true,
        };
        let url = "https://git.example.com/base/%41/b.git/info/refs?x=y";
        assert_eq!(target(url), Some(expected));
        for other in [
            "https://git.example.com/other/a/info/refs",
            "https://git.example.com/base/../a/info/refs",
            "https://git.example.com/base/%2e%2e/a/info/refs",
            "https://git.example.com/base/a%2fb/info/refs",
            "https://git.example.com/base//a/info/refs",
            "https://git.example.com/base/users/sign_in",
            "http://git.example.com/base/a/info/refs",
            "https://git.example.com:8443/base/a/info/refs",
            "https://git.example.org/base/a/info/refs",
            "https://git.example.com@evil.org/base/a/info/refs",
        ] {
            assert_eq!(target(other), None, "{other}");
        }
    }

    #[test]
    fn another_spelling_is_the_same_repository() {
        let is_own = |ignore_case: bool, url: &str| {
            let base = base(ignore_case);
            let target = base.target(&Url::parse(url).unwrap(), "/info/refs");
            base.is_own(&target.unwrap())
        };
        let with_git = "https://git.example.com/base/org/repo.git/info/refs";
        let in_capitals = "https://git.example.com/base/Org/Repo/info/refs";

        assert!(is_own(false, with_git) && is_own(true, in_capitals));
        assert!(!is_own(false, in_capitals));
    }
}
