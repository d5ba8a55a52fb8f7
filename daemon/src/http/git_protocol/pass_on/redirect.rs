//! Redirects of upstream's, which lead nowhere but below the same upstream.

use axum::http::{StatusCode, header};
use reqwest::Url;

use crate::http::git_protocol::GitHttpError;
use crate::http::git_protocol::target::Target;
use crate::mirror::Upstream;

/// Where the repositories of one host are.
#[derive(Clone, Debug)]
pub(in crate::http::git_protocol) struct Base {
    /// The host in the names of repositories, which is the key of the configuration.
    pub(super) host: String,
    /// Ends with a slash; without credentials.
    url: Url,
}

impl Base {
    pub(super) fn of(upstream: &Upstream, target: &Target) -> Result<Self, GitHttpError> {
        let base = upstream.url().strip_suffix(target.repo.path());
        let url = base.and_then(|base| Url::parse(base).ok());
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
        Ok(Self {
            host: target.repo.host().to_owned(),
            url: url.ok_or(GitHttpError::NotHttp)?,
        })
    }

    /// Where a redirect leads, if that is below this upstream, which alone may see the headers.
    pub(super) fn target(&self, from: &Url, response: &reqwest::Response) -> Option<Url> {
        let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
        let mut to = from.join(location).ok()?;
        // As the request that is repeated.
        to.set_username(from.username()).ok()?;
        to.set_password(from.password()).ok()?;
        self.path_below(&to).is_some().then_some(to)
    }

    /// The path and query at which the daemon passes requests for `url` on, which must be below this
    /// upstream.
    pub(super) fn here(&self, url: &Url) -> Option<String> {
        let path = format!("/git/{}/{}", self.host, self.path_below(url)?);
        Some(match url.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        })
    }

    fn path_below<'a>(&self, url: &'a Url) -> Option<&'a str> {
        let path = url.path().strip_prefix(self.url.path())?;
        (url.origin() == self.url.origin()).then_some(path)
    }
}

/// Whether an answer sends the request to another place.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_upstream_has_a_path_here() {
        let base = Base {
            host: "example.com".to_owned(),
            url: Url::parse("https://git.example.com/base/").unwrap(),
        };
        let here = |url: &str| base.here(&Url::parse(url).unwrap());

        assert_eq!(
            here("https://git.example.com/base/a/b.git/info/refs?x=y").as_deref(),
            Some("/git/example.com/a/b.git/info/refs?x=y")
        );
        for other in [
            "https://git.example.com/other/a",
            "https://git.example.com/base/../a",
            "http://git.example.com/base/a",
            "https://git.example.com:8443/base/a",
            "https://git.example.org/base/a",
            "https://git.example.com@evil.org/base/a",
        ] {
            assert_eq!(here(other), None, "{other}");
        }
    }
}
