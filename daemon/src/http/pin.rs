//! Pins: one revision of an archive on the stable URL, whatever becomes current meanwhile.
//!
//! A probe gives a token, `etag:"<digest of the TOC>"`; a request that carries it is answered from
//! that revision alone. The token says all there is to know, so any replica can resolve it.

use axum::http::HeaderMap;
use cachewfs_format::Digest;
use cachewfs_format::api::SNAPSHOT_PIN_HEADER;

/// What a request says of pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pin {
    /// Nothing: it wants what is current.
    Absent,
    /// It wants a token for what is current.
    Probe,
    /// It wants the archive whose TOC has this digest; `None`: a token that was never ours.
    Revision(Option<Digest>),
}

impl Pin {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(SNAPSHOT_PIN_HEADER).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => Self::parse(value.to_str().unwrap_or_default().trim()),
            // Two revisions at once can't be had.
            (Some(_), Some(_)) => Self::Revision(None),
        }
    }

    fn parse(value: &str) -> Self {
        if value == "probe" {
            return Self::Probe;
        }
        let tag = value.strip_prefix("etag:").map(str::trim);
        // With or without the quotes of an ETag.
        Self::Revision(tag.and_then(|tag| tag.parse().ok().or_else(|| toc_of(tag))))
    }
}

/// The digest of the TOC that an `ETag` of ours is.
pub(super) fn toc_of(etag: &str) -> Option<Digest> {
    let digits = etag.strip_prefix('"')?.strip_suffix('"')?;
    digits.parse().ok()
}

/// The token for the revision with this `ETag`.
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
