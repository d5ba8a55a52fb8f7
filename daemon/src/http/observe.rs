//! Observes every request: gives it an id, parses its URL, counts it, traces it and logs its end.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use cachewfs_format::RepoName;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tracing::{Instrument as _, Span, debug, info_span};

use super::app::App;
use super::route::ParsedUrl;
use crate::base::random_number;
use crate::metrics::ObservedRequest;
use crate::traces::{self, RequestParts};

/// The header with the request's id, in the request and in its answer. An id of a proxy is adopted.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is adopted.
const MAX_ID_LEN: usize = 64;

/// Observes a request from its head to the last byte of its answer.
pub(super) async fn observe(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = request_id(request.headers());
    let method = request.method().clone();
    // Without the query, which may carry a token.
    let path = request.uri().path();
    let span = info_span!("request", request_id = %id, %method, path);
    let url = Arc::new(ParsedUrl::of(
        &method,
        request.uri(),
        &app.context.config.now(),
    ));
    let mut observed =
        ObservedRequest::begin(Arc::clone(&app.context.metrics), url.endpoint.class());
    let trace = traces::request_span(&RequestParts {
        method: &method,
        headers: request.headers(),
        id: &id,
        pattern: url.endpoint.pattern(),
        repo: url.repo.as_ref().map(RepoName::as_str),
    });
    request.extensions_mut().insert(url);
    let answer = next.run(request).instrument(trace.clone());
    let response = answer.instrument(span.clone()).await;
    observed.status(response.status().as_u16());
    let (mut parts, body) = response.into_parts();
    if let Ok(id) = HeaderValue::from_str(&id) {
        parts.headers.insert(REQUEST_ID, id);
    }
    let length = parts.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let expected = length.or(body.size_hint().exact());
    if method == Method::HEAD || body.is_end_stream() {
        observed.finish();
    }
    let body = ObservedBody {
        body,
        expected,
        status: parts.status.as_u16(),
        observed,
        span,
        trace,
    };
    Response::from_parts(parts, Body::new(body))
}

fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    // The id goes into the log and back into a header, so only harmless characters are adopted.
    let is_good = |id: &&str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (1..=MAX_ID_LEN).contains(&id.len()) && id.bytes().all(is_plain)
    };
    given.filter(is_good).map_or_else(new_id, str::to_owned)
}

/// Returns an id that is unique among the requests of all daemons, as far as a log needs it.
fn new_id() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(random_number);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:08x}-{count}", *PROCESS >> 32)
}

/// The body of an answer, whose bytes are counted while they are sent.
struct ObservedBody {
    body: Body,
    /// The length, if it is known.
    expected: Option<u64>,
    status: u16,
    observed: ObservedRequest,
    /// The span of the log messages.
    span: Span,
    trace: Span,
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let _entered = this.span.enter();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let len = frame.data_ref().map_or(0, Bytes::len);
                this.observed.sending(len as u64);
                // hyper doesn't poll a body of known length for its end.
                if this.body.is_end_stream() || this.expected == Some(this.observed.sent_bytes()) {
                    this.observed.finish();
                }
            }
            Poll::Ready(None) => this.observed.finish(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ObservedBody {
    fn drop(&mut self) {
        let _entered = self.span.enter();
        let (status, sent_bytes) = (self.status, self.observed.sent_bytes());
        let is_whole = self.observed.is_whole();
        traces::end_request(&self.trace, status, (sent_bytes, is_whole));
        // Dropped before its end: the client went away, or the body failed.
        let duration_ms = u64::try_from(self.observed.took().as_millis()).unwrap_or(u64::MAX);
        if is_whole {
            debug!(status, sent_bytes, duration_ms, "Answered with {status}");
        } else {
            debug!(
                status,
                sent_bytes, duration_ms, "The answer was interrupted"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(given: &str) -> String {
        let given = HeaderValue::from_str(given).unwrap();
        request_id(&[(REQUEST_ID, given)].into_iter().collect())
    }

    #[test]
    fn valid_ids_are_adopted_and_others_replaced() {
        assert_eq!(id_of("abc-1.2_3"), "abc-1.2_3");
        for bad in ["", "a b", "a\"b", "%0a", &"x".repeat(65)] {
            assert_ne!(id_of(bad), bad);
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
