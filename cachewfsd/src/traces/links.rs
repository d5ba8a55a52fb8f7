//! [`Links`]: names spans in W3C's Trace Context, and makes spans children of others by their
//! names.

use cachewfs_daemon::TraceLinks;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The links of the spans that this process sends.
#[derive(Debug)]
pub(crate) struct Links;

impl TraceLinks for Links {
    fn headers_of(&self, span: &Span) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut carrier = WrittenHeaders(&mut headers);
        TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
        headers
    }

    fn set_parent(&self, span: &Span, headers: &HeaderMap) {
        let propagator = TraceContextPropagator::new();
        let parent = propagator.extract_with_context(&Context::new(), &ReadHeaders(headers));
        // Fails only if traces are off. Then there is nothing to link.
        span.set_parent(parent).ok();
    }
}

/// Headers in the form that the propagator reads.
struct ReadHeaders<'a>(&'a HeaderMap);

impl Extractor for ReadHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// Headers in the form that the propagator writes.
struct WrittenHeaders<'a>(&'a mut HeaderMap);

impl Injector for WrittenHeaders<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(key, value);
        }
    }
}
