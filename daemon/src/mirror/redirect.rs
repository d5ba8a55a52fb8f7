//! Redirects of an upstream's: followed below its base URL alone, and only if they name a
//! repository.

use axum::http::{HeaderMap, StatusCode, header};
use cachewfs_format::RepoName;
use reqwest::Url;

use super::Upstream;
use crate::percent::decode_percent;

/// At most this many redirects of one request are followed.
pub(crate) const MAX_REDIRECTS: usize = 3;

/// Where the repositories of one host are.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    upstream: Upstream,
    /// Ends with a slash; without credentials.
    url: Url,
}

/// Where a redirect leads: a repository, under the name that upstream gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) repo: RepoName,
    /// How the name is spelled in the URL.
    pub(crate) has_git_suffix: bool,
}

impl Base {
    /// Returns the base of the repositories that are beside `upstream`; `None` if it isn't asked
    /// over HTTP.
    pub(crate) fn of(upstream: &Upstream) -> Option<Self> {
        Self::below(upstream, upstream.url())
    }

    /// Returns the base in `url`, which git makes of the URL of `upstream`.
    pub(super) fn below(upstream: &Upstream, url: &str) -> Option<Self> {
        let base = url.strip_suffix(upstream.repo().path())?;
        let url = Url::parse(base).ok()?;
        let is_http = matches!(url.scheme(), "http" | "https") && url.path().ends_with('/');
        is_http.then(|| Self {
            upstream: upstream.clone(),
            url,
        })
    }

    /// The host in the names of repositories, which is the key of the configuration.
    pub(crate) fn host(&self) -> &str {
        self.upstream.repo().host()
    }

    /// Returns the URL that an answer to a request for `from` names, if that is below this base.
    /// Only there may the headers of the request be shown.
    pub(crate) fn follow(&self, from: &Url, headers: &HeaderMap) -> Option<Url> {
        let location = headers.get(header::LOCATION)?.to_str().ok()?;
        let mut to = from.join(location).ok()?;
        to.set_username("").ok()?;
        to.set_password(None).ok()?;
        self.path_below(&to).is_some().then_some(to)
    }

    /// Returns the repository whose `tail` (such as `/info/refs`) is at `url`.
    pub(crate) fn place(&self, url: &Url, tail: &str) -> Option<Place> {
        let path = self.path_below(url)?.strip_suffix(tail)?;
        let segment = |segment: &str| decode_percent(segment).filter(|it| !it.contains('/'));
        let segments: Option<Vec<String>> = path.split('/').map(segment).collect();
        let name = segments?.join("/");
        let repo = RepoName::parse(&format!("{}/{name}", self.host())).ok()?;
        Some(Place {
            repo: self.upstream.canonical(repo),
            has_git_suffix: name.strip_suffix(".git").is_some(),
        })
    }

    /// Returns whether `place` is the repository that is asked for.
    pub(crate) fn is_own(&self, place: &Place) -> bool {
        place.repo == *self.upstream.repo()
    }

    fn path_below<'a>(&self, url: &'a Url) -> Option<&'a str> {
        let path = url.path().strip_prefix(self.url.path())?;
        (url.origin() == self.url.origin()).then_some(path)
    }
}

/// Returns whether an answer sends the request to another place.
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(ignore_case: bool) -> Base {
        let repo = RepoName::parse("example.com/org/repo").unwrap();
        let url = "https://git.example.com/base".to_owned();
        let config = crate::config::UpstreamConfig::from(url).with_ignore_case(ignore_case);
        let upstreams = [("example.com".to_owned(), config)].into();
        let upstream = Upstream::of(&repo, &upstreams, &reqwest::Client::new());
        Base::of(&upstream.unwrap()).unwrap()
    }

    #[test]
    fn only_a_repository_below_upstream_has_a_name() {
        let place = |url: &str| base(false).place(&Url::parse(url).unwrap(), "/info/refs");

        let expected = Place {
            repo: RepoName::parse("example.com/A/b").unwrap(),
            has_git_suffix: true,
        };
        let url = "https://git.example.com/base/%41/b.git/info/refs?x=y";
        assert_eq!(place(url), Some(expected));
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
            assert_eq!(place(other), None, "{other}");
        }
    }

    #[test]
    fn another_spelling_is_the_same_repository() {
        let is_own = |ignore_case: bool, url: &str| {
            let base = base(ignore_case);
            let place = base.place(&Url::parse(url).unwrap(), "/info/refs");
            base.is_own(&place.unwrap())
        };
        let with_git = "https://git.example.com/base/org/repo.git/info/refs";
        let in_capitals = "https://git.example.com/base/Org/Repo/info/refs";

        assert!(is_own(false, with_git) && is_own(true, in_capitals));
        assert!(!is_own(false, in_capitals));
    }
}
