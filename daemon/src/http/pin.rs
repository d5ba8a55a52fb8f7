//! Pins: they keep requests to the stable URL on one revision of an archive while newer snapshots
//! become current.
//!
//! The answer to a probe has a token, `etag:"<digest of the TOC>"`. A request with that token is
//! answered from that revision only. The token is self-contained, so any replica can resolve it.

use axum::http::HeaderMap;
use cachewfs_format::Digest;
use cachewfs_format::api::SNAPSHOT_PIN_HEADER;

/// The pin header of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pin {
    /// No header: the client wants the current archive.
    Absent,
    /// The client wants a token for the current archive.
    Probe,
    /// The client wants the archive whose TOC has this digest. `None` is a token that no daemon has
    /// issued, which matches nothing.
    Revision(Option<Digest>),
}

impl Pin {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(SNAPSHOT_PIN_HEADER).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => Self::parse(value.to_str().unwrap_or_default().trim()),
            // Two tokens can't both be satisfied.
            (Some(_), Some(_)) => Self::Revision(None),
        }
    }

    fn parse(value: &str) -> Self {
        if value == "probe" {
            return Self::Probe;
        }
        let tag = value.strip_prefix("etag:").map(str::trim);
        // A token is accepted with or without the quotes of the `ETag`.
        Self::Revision(tag.and_then(|tag| tag.parse().ok().or_else(|| toc_of(tag))))
    }
}

/// Returns the digest of the TOC in an `ETag` of this daemon.
pub(super) fn toc_of(etag: &str) -> Option<Digest> {
    let digits = etag.strip_prefix('"')?.strip_suffix('"')?;
    digits.parse().ok()
}

/// Returns the token for the revision with this `ETag`.
pub(super) fn token(etag: &str) -> String {
    format!("etag:{etag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(values: &[&str]) -> Pin {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SNAPSHOT_PIN_HEADER, value.parse().unwrap());
        }
        Pin::of(&headers)
    }

    #[test]
    fn reads_its_own_tokens() {
        let digest = Digest::of(b"x");

        assert_eq!(pin(&[]), Pin::Absent);
        assert_eq!(pin(&["probe"]), Pin::Probe);
        let token = token(&format!("\"{digest}\""));
        assert_eq!(pin(&[&token]), Pin::Revision(Some(digest)));
        assert_eq!(
            pin(&[&format!("etag:{digest}")]),
            Pin::Revision(Some(digest))
        );
    }

    #[test]
    fn other_tokens_name_no_revision() {
        let digest = Digest::of(b"x").to_string();
        for other in ["", "x", "etag:", "etag:\"", "etag:W/\"1\"", &digest] {
            assert_eq!(pin(&[other]), Pin::Revision(None), "{other:?}");
        }
        assert_eq!(pin(&["probe", "probe"]), Pin::Revision(None));
    }
}
