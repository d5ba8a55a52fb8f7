//! Sending clients that can do it to the bucket for what this daemon has no copy of.

use std::ops::Range;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use cachewfs_format::api::{DIRECT_HEADER, DIRECT_RANGE_HEADER};

use super::published::PublishedArchive;
use super::snapshots::ArchiveRequest;

/// The URL in it ends soon, and is for nobody else.
const NOT_STORED: &str = "private, no-store";

/// The 307 for `part` of an archive; `None` if it is answered with the bytes. A client follows a redirect
/// with the range that it asked for, which counts in the archive and not in the segment: so only who says
/// that it knows gets one.
pub(super) async fn redirect(
    request: &ArchiveRequest,
    published: &PublishedArchive,
    part: &Range<u64>,
) -> Option<Response> {
    if request.method != Method::GET || !accepts_redirect(&request.headers) {
        return None;
    }
    let (url, range) = published.archive.direct(part.clone()).await?;
    let mut location = HeaderValue::from_str(url.secret()).ok()?;
    location.set_sensitive(true);
    Response::builder()
        .status(StatusCode::TEMPORARY_REDIRECT)
        .header(header::LOCATION, location)
        .header(
            DIRECT_RANGE_HEADER,
            format!("bytes={}-{}", range.start, range.end - 1),
        )
        .header(header::ETAG, &published.etag)
        .header(header::CACHE_CONTROL, NOT_STORED)
        .header(header::VARY, DIRECT_HEADER)
        .header(header::CONTENT_LENGTH, 0)
        .body(Body::empty())
        .ok()
}

fn accepts_redirect(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(DIRECT_HEADER).iter();
    matches!((values.next(), values.next()), (Some(value), None) if value == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_says_that_it_knows_gets_a_redirect() {
        let headers = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(DIRECT_HEADER, value.parse().unwrap());
            }
            headers
        };

        assert!(accepts_redirect(&headers(&["1"])));
        for other in [&[][..], &["0"], &["true"], &["1", "1"]] {
            assert!(!accepts_redirect(&headers(other)), "{other:?}");
        }
    }
}
