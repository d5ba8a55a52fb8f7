//! Preconditions of requests (RFC 9110 section 13), in the order of section 13.2.2.

use std::time::SystemTime;

use axum::http::{HeaderMap, HeaderName, header};

/// The result of the preconditions of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreconditionOutcome {
    /// The request is answered as usual.
    Met,
    /// The answer is 304 Not Modified.
    NotModified,
    /// The answer is 412 Precondition Failed.
    Failed,
}

/// The validators of an archive, with which preconditions are compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validators<'a> {
    /// The strong entity tag, with its quotes.
    pub(super) etag: &'a str,
    /// The time of the last modification, in whole seconds.
    pub(super) modified: SystemTime,
}

impl Validators<'_> {
    /// Evaluates `If-Match`, else `If-Unmodified-Since`; then `If-None-Match`, else
    /// `If-Modified-Since`.
    pub(super) fn check(&self, headers: &HeaderMap) -> PreconditionOutcome {
        let is_ok = match list(headers, &header::IF_MATCH) {
            Some(tags) => tags.iter().any(|&tag| tag == "*" || tag == self.etag),
            None => date(headers, &header::IF_UNMODIFIED_SINCE)
                .is_none_or(|since| self.modified <= since),
        };
        if !is_ok {
            return PreconditionOutcome::Failed;
        }
        // `If-Match` compares strongly and `If-None-Match` weakly (section 8.8.3.2).
        let weak = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag;
        let is_new = match list(headers, &header::IF_NONE_MATCH) {
            Some(tags) => !tags.into_iter().any(weak),
            None => {
                date(headers, &header::IF_MODIFIED_SINCE).is_none_or(|since| self.modified > since)
            }
        };
        if is_new {
            PreconditionOutcome::Met
        } else {
            PreconditionOutcome::NotModified
        }
    }

    /// Returns whether `If-Range` allows a partial answer: it is absent, or names this revision.
    pub(super) fn allows_range(&self, headers: &HeaderMap) -> bool {
        match headers.get(header::IF_RANGE) {
            None => true,
            // A date is never accepted: with a resolution of one second it is not a strong
            // validator, and two snapshots may share it.
            Some(value) => value.to_str().is_ok_and(|tag| tag.trim() == self.etag),
        }
    }
}

/// Returns the elements of all headers called `name`, or `None` if there is none. Splitting at
/// commas is safe, because our entity tags contain none.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Vec<&'a str>> {
    let mut values = headers.get_all(name).iter().peekable();
    values.peek()?;
    let texts = values.filter_map(|value| value.to_str().ok());
    Some(
        texts
            .flat_map(|text| text.split(','))
            .map(str::trim)
            .collect(),
    )
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ETAG: &str = "\"abc\"";

    fn check(pairs: &[(HeaderName, &str)]) -> PreconditionOutcome {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let headers = pairs
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect();
        Validators {
            etag: ETAG,
            modified,
        }
        .check(&headers)
    }

    #[test]
    fn if_match_is_strong_and_comes_first() {
        assert_eq!(check(&[(header::IF_MATCH, ETAG)]), PreconditionOutcome::Met);
        assert_eq!(check(&[(header::IF_MATCH, "*")]), PreconditionOutcome::Met);
        assert_eq!(
            check(&[(header::IF_MATCH, "\"x\", \"abc\"")]),
            PreconditionOutcome::Met
        );
        assert_eq!(
            check(&[(header::IF_MATCH, "W/\"abc\"")]),
            PreconditionOutcome::Failed
        );
        assert_eq!(
            check(&[(header::IF_MATCH, "\"x\""), (header::IF_NONE_MATCH, ETAG)]),
            PreconditionOutcome::Failed
        );
    }

    #[test]
    fn if_none_match_is_weak() {
        assert_eq!(
            check(&[(header::IF_NONE_MATCH, "W/\"abc\"")]),
            PreconditionOutcome::NotModified
        );
        assert_eq!(
            check(&[(header::IF_NONE_MATCH, "\"x\"")]),
            PreconditionOutcome::Met
        );
    }

    #[test]
    fn dates_are_ignored_if_there_are_tags() {
        let (early, late) = (
            "Sat, 01 Jan 2000 00:00:00 GMT",
            "Tue, 01 Jan 2030 00:00:00 GMT",
        );

        assert_eq!(
            check(&[(header::IF_MODIFIED_SINCE, late)]),
            PreconditionOutcome::NotModified
        );
        assert_eq!(
            check(&[(header::IF_MODIFIED_SINCE, early)]),
            PreconditionOutcome::Met
        );
        assert_eq!(
            check(&[(header::IF_UNMODIFIED_SINCE, early)]),
            PreconditionOutcome::Failed
        );
        assert_eq!(
            check(&[
                (header::IF_MODIFIED_SINCE, late),
                (header::IF_NONE_MATCH, "\"x\"")
            ]),
            PreconditionOutcome::Met
        );
    }
}
