//! [`TraceLinks`]: links spans to spans elsewhere, in the words of W3C's Trace Context.
//!
//! Spans of `tracing` know only parents in their own process that still exist. The program that
//! sends traces knows more.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use http::HeaderMap;
use tracing::Span;

/// Links spans to parents that are no span of this process, or one that has ended.
pub trait TraceLinks: Debug + Send + Sync {
    /// Returns the headers `traceparent` and `tracestate` that name the span, or none if traces are
    /// off.
    fn headers_of(&self, span: &Span) -> HeaderMap;

    /// Makes `span`, which is new, a child of the span that the headers name, if they name one.
    fn set_parent(&self, span: &Span, headers: &HeaderMap);
}

/// Like the subscriber of `tracing`, the links belong to the process, not to a daemon in it.
static LINKS: OnceLock<Arc<dyn TraceLinks>> = OnceLock::new();

/// Has all spans of this process linked by `links`. Does nothing if some links are there already.
pub(crate) fn link_by(links: &Arc<dyn TraceLinks>) {
    LINKS.get_or_init(|| Arc::clone(links));
}

/// Returns the headers that name the span.
pub(super) fn headers_of(span: &Span) -> HeaderMap {
    LINKS
        .get()
        .map(|links| links.headers_of(span))
        .unwrap_or_default()
}

/// Makes `span`, which is new, a child of the span that the headers name.
pub(super) fn set_parent(span: &Span, headers: &HeaderMap) {
    if let Some(links) = LINKS.get() {
        links.set_parent(span, headers);
    }
}
