//! Redirects clients to the bucket for ranges of which this daemon has no local copy.

use std::ops::Range;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use cachewfs_format::api::{DIRECT_HEADER, DIRECT_RANGE_HEADER};

use super::catalog::PublishedArchive;
use super::request::ArchiveRequest;

/// A signed URL expires soon, and is for this client only.
const NOT_STORED: &str = "private, no-store";

/// Returns the 307 redirect for `part` of an archive, or `None` if the daemon sends the bytes
/// itself.
///
/// An ordinary client repeats its `Range` header when it follows a redirect. But the range counts
/// bytes of the archive, and the new URL is that of a segment. So only a client that sends the
/// header, which says that it uses the range of the answer instead, is redirected.
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
    // The signature in the URL is a credential; this keeps it out of `Debug` output.
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
    fn only_clients_that_send_the_header_are_redirected() {
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
