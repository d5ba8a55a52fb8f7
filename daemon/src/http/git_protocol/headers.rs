//! The headers that are passed on to upstream and back to the client, and the `Git-Protocol`
//! header.
//!
//! Both directions use allow lists: hop-by-hop headers, cookies and the daemon's own token stay
//! here.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::http::error::GitHttpError;

const GIT_PROTOCOL: &str = "git-protocol";

/// Headers of a request that are passed on to upstream. `Authorization` is one of them: upstream
/// decides what the client may do there.
const TO_UPSTREAM: &[&str] = &[
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "content-type",
    "if-modified-since",
    "if-none-match",
    "range",
    "user-agent",
    "git-protocol",
];

/// Headers that describe a body which is passed on unchanged.
const OF_THE_BODY: &[&str] = &["content-encoding", "content-length"];

/// Headers of upstream's answer that are passed back to the client.
const FROM_UPSTREAM: &[&str] = &[
    "accept-ranges",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "etag",
    "expires",
    "last-modified",
    "pragma",
    "retry-after",
    "vary",
    "www-authenticate",
    "lfs-authenticate",
    "x-github-request-id",
];

/// Returns the headers of a request that are passed on to upstream.
pub(super) fn to_upstream(headers: &HeaderMap) -> HeaderMap {
    copy(headers, TO_UPSTREAM)
}

/// Returns these headers without ranges and conditions, for a request whose complete answer other
/// clients may share.
pub(super) fn to_upstream_to_read(headers: &HeaderMap) -> HeaderMap {
    let mut headers = to_upstream(headers);
    for name in [
        header::RANGE,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
    ] {
        headers.remove(name);
    }
    headers
}

/// Returns the headers that describe a body which is passed on unchanged.
pub(super) fn of_the_body(headers: &HeaderMap) -> HeaderMap {
    copy(headers, OF_THE_BODY)
}

/// Returns the headers of upstream's answer that are passed back to the client.
pub(super) fn from_upstream(headers: &HeaderMap) -> HeaderMap {
    copy(headers, FROM_UPSTREAM)
}

fn copy(headers: &HeaderMap, allowed: &[&'static str]) -> HeaderMap {
    let mut copy = HeaderMap::new();
    for &name in allowed {
        for value in headers.get_all(name) {
            copy.append(HeaderName::from_static(name), value.clone());
        }
    }
    copy
}

/// Returns the `Git-Protocol` header, or an error unless it is a list of `key` or `key=value`,
/// joined by colons. It becomes an environment variable of git.
pub(super) fn git_protocol(headers: &HeaderMap) -> Result<Option<String>, GitHttpError> {
    const MAX_LEN: usize = 128;
    let mut values = headers.get_all(GIT_PROTOCOL).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(GitHttpError::BadProtocol),
    };
    let text = value.to_str().map_err(|_| GitHttpError::BadProtocol)?;
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let is_item = |item: &str| {
        let (key, value) = item.split_once('=').unwrap_or((item, "0"));
        is_word(key) && is_word(value)
    };
    if text.len() <= MAX_LEN && text.split(':').all(is_item) {
        Ok(Some(text.to_owned()))
    } else {
        Err(GitHttpError::BadProtocol)
    }
}

/// Returns whether the client speaks protocol version 2. If it names several versions, the highest
/// counts.
pub(super) fn is_version_2(protocol: Option<&str>) -> bool {
    protocol.is_some_and(|protocol| protocol.split(':').any(|item| item == "version=2"))
}

/// Returns the headers that keep an answer of the git protocol out of caches.
pub(super) fn no_cache() -> HeaderMap {
    let pairs = [
        (
            header::CACHE_CONTROL,
            "no-cache, max-age=0, must-revalidate",
        ),
        (header::EXPIRES, "Fri, 01 Jan 1980 00:00:00 GMT"),
        (header::PRAGMA, "no-cache"),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name, HeaderValue::from_static(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(value: &str) -> Result<Option<String>, GitHttpError> {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        let name = HeaderName::from_static(GIT_PROTOCOL);
        git_protocol(&[(name, value)].into_iter().collect())
    }

    #[test]
    fn accepts_key_value_lists_and_nothing_else() {
        for good in [
            "version=2",
            "version=1",
            "version=1:version=2",
            "x:version=2",
        ] {
            assert_eq!(protocol(good).unwrap().as_deref(), Some(good));
        }
        for bad in ["", "version=2;x", "a b", "version=", "=", "$(x)", "v:", "é"] {
            assert!(protocol(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(is_version_2(Some("version=1:version=2")));
        assert!(!is_version_2(Some("version=1")) && !is_version_2(None));
    }

    #[test]
    fn hop_by_hop_and_unknown_headers_stay_here() {
        let sent = ["connection", "cookie", "x-forwarded-for", "host", "te"]
            .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("x")));
        let all: HeaderMap = sent.into_iter().collect();

        assert!(to_upstream(&all).is_empty() && from_upstream(&all).is_empty());
    }
}
