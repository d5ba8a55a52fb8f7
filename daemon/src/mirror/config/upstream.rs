//! The configuration of one upstream: base URL, credentials, and whether it ignores case in names.

use std::fmt;

use reqwest::Url;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::decode_percent;
use crate::mirror::Login;

/// The upstreams that are known to ignore case in the names of repositories.
const IGNORING_CASE: &[&str] = &[
    "github.com",
    "gitlab.com",
    "www.github.com",
    "www.gitlab.com",
];

/// One value in `[upstreams]`: the base URL, or a table of `url` and `ignore_case`.
///
/// Credentials are taken out of the URL as soon as it is read. So they can't get into a command
/// line, a log or an archive.
#[derive(Clone, PartialEq)]
pub struct UpstreamConfig {
    /// The base URL, without credentials.
    url: String,
    login: Option<Login>,
    ignore_case: Option<bool>,
}

/// The form of a value with more than the URL.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpstreamTable {
    url: String,
    #[serde(default)]
    ignore_case: Option<bool>,
}

impl UpstreamConfig {
    /// Returns the base URL, without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the credentials that were in the URL or in the environment.
    pub(crate) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// Returns the upstream with `ignore_case` set: if `true`, names that differ only in case are
    /// one repository.
    pub fn with_ignore_case(mut self, ignore_case: bool) -> Self {
        self.ignore_case = Some(ignore_case);
        self
    }

    /// Returns whether upstream takes names that differ only in case for one repository. `host` is
    /// the key of this upstream in the configuration.
    pub(crate) fn ignores_case(&self, host: &str) -> bool {
        let is_known = |host: &str| {
            IGNORING_CASE
                .iter()
                .any(|known| known.eq_ignore_ascii_case(host))
        };
        let is_at_known = || {
            let url = Url::parse(&self.url).ok();
            url.is_some_and(|url| url.host_str().is_some_and(is_known))
        };
        self.ignore_case
            .unwrap_or_else(|| is_known(host) || is_at_known())
    }

    /// Replaces the URL, and the credentials by those in the new URL.
    pub(crate) fn set_url(&mut self, url: String) {
        let ignore_case = self.ignore_case;
        *self = Self {
            ignore_case,
            ..url.into()
        };
    }

    /// Replaces the credentials. Returns `None` if the URL has no host to send them to.
    pub(crate) fn set_login(&mut self, login: Login) -> Option<()> {
        Url::parse(&self.url).ok().filter(Url::has_host)?;
        self.login = Some(login);
        Some(())
    }

    /// Returns whether the base URL is one.
    pub(crate) fn has_good_url(&self) -> bool {
        Url::parse(&self.url).is_ok()
    }

    /// Returns whether the credentials can be given to git, or there are none.
    pub(crate) fn has_good_login(&self) -> bool {
        // git's credential protocol has one value per line. A line break in a secret would add a
        // value of its own, such as another host.
        let is_good = |text: &str| !text.chars().any(char::is_control);
        let login = self.login.as_ref();
        login.is_none_or(|login| is_good(&login.user) && is_good(&login.secret))
    }

    /// Returns the URL for people, with `***` in place of credentials.
    fn to_shown_url(&self) -> String {
        match (&self.login, self.url.split_once("://")) {
            (Some(_), Some((scheme, rest))) => format!("{scheme}://***@{rest}"),
            _ => self.url.clone(),
        }
    }
}

impl From<String> for UpstreamConfig {
    fn from(url: String) -> Self {
        let (url, login) = split_credentials(url);
        Self {
            url,
            login,
            ignore_case: None,
        }
    }
}

/// Splits a URL into the URL without credentials, and the credentials if it has any.
fn split_credentials(url: String) -> (String, Option<Login>) {
    let Some((scheme, rest)) = url.split_once("://") else {
        return (url, None);
    };
    // By hand: `Url` would normalize the rest, and the base URL must stay as it was written.
    let authority_len = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_len);
    let Some((credentials, host)) = authority.rsplit_once('@') else {
        return (url, None);
    };
    let (user, secret) = credentials.split_once(':').unwrap_or((credentials, ""));
    let decode = |text: &str| decode_percent(text).unwrap_or_else(|| text.to_owned());
    let login = Login {
        user: decode(user),
        secret: decode(secret),
    };
    (format!("{scheme}://{host}{path}"), Some(login))
}

impl fmt::Debug for UpstreamConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_shown_url())
    }
}

impl Serialize for UpstreamConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let url = self.to_shown_url();
        match self.ignore_case {
            None => serializer.serialize_str(&url),
            ignore_case => UpstreamTable { url, ignore_case }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for UpstreamConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl<'de> Visitor<'de> for Written {
            type Value = UpstreamConfig;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a URL, or a table of url and ignore_case")
            }

            fn visit_str<E: serde::de::Error>(self, url: &str) -> Result<Self::Value, E> {
                Ok(url.to_owned().into())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let table = UpstreamTable::deserialize(MapAccessDeserializer::new(map))?;
                let upstream = UpstreamConfig::from(table.url);
                Ok(UpstreamConfig {
                    ignore_case: table.ignore_case,
                    ..upstream
                })
            }
        }
        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(url: &str) -> UpstreamConfig {
        url.to_owned().into()
    }

    #[test]
    fn credentials_are_taken_out_of_the_url() {
        for (written, url, login) in [
            ("https://h.org/base", "https://h.org/base", None),
            (
                "https://me:s3%40c@h.org:80/b",
                "https://h.org:80/b",
                Some(("me", "s3@c")),
            ),
            ("https://token@h.org", "https://h.org", Some(("token", ""))),
            (
                "https://a@b:c@h.org/d@e",
                "https://h.org/d@e",
                Some(("a@b", "c")),
            ),
            ("file:///a@b/c", "file:///a@b/c", None),
        ] {
            let upstream = upstream(written);

            assert_eq!(upstream.url(), url);
            let found = upstream.login().map(|login| (&*login.user, &*login.secret));
            assert_eq!(found, login, "{written}");
        }
        assert!(!upstream("https://a:b%0ac@h.org").has_good_login());
    }

    #[test]
    fn the_known_upstreams_ignore_case_unless_configured_otherwise() {
        for (host, url, expected) in [
            ("github.com", "http://proxy.internal/gh", true),
            ("gh", "https://GitHub.com", true),
            ("gitlab.com", "https://gitlab.com", true),
            ("gitlab.example.com", "https://gitlab.example.com", false),
            ("local", "file:///github.com", false),
        ] {
            assert_eq!(upstream(url).ignores_case(host), expected, "{host}");
            for configured in [true, false] {
                let upstream = upstream(url).with_ignore_case(configured);
                assert_eq!(upstream.ignores_case(host), configured);
            }
        }
    }
}
