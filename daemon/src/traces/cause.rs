//! The link from a job to the request that caused it.
//!
//! A job runs in a task of its own and may outlive the request. Its span still belongs to the
//! request's trace. The link holds the id of the request's span, not the span: the span ends when
//! the request ends.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use parking_lot::Mutex;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::start::is_on;

/// The span of the request that caused a job. It is empty if the job is periodic, or if traces are
/// off.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cause(Option<SpanContext>);

impl Cause {
    /// Returns the current span of this thread.
    pub(crate) fn current() -> Self {
        if !is_on() {
            return Self::default();
        }
        let context = Span::current().context();
        let span = context.span().span_context().clone();
        Self(span.is_valid().then_some(span))
    }

    /// Makes `span` a child of this cause. `span` must be new.
    pub(super) fn adopt(&self, span: &Span) {
        if let Some(parent) = &self.0 {
            let context = Context::new().with_remote_span_context(parent.clone());
            // Fails only if traces are off. Then there is nothing to link.
            span.set_parent(context).ok();
        }
    }
}

/// The first request that asked for a job which hasn't begun yet.
#[derive(Debug, Default)]
pub(crate) struct FirstCause(Mutex<Cause>);

impl FirstCause {
    pub(crate) fn new(cause: Cause) -> Self {
        Self(Mutex::new(cause))
    }

    /// Notes the current span of this thread, unless an earlier request is noted already.
    pub(crate) fn note(&self) {
        let cause = Cause::current();
        if cause.0.is_some() {
            let mut first = self.0.lock();
            if first.0.is_none() {
                *first = cause;
            }
        }
    }

    /// Returns the noted cause, for the job that begins now, and forgets it.
    pub(crate) fn take(&self) -> Cause {
        std::mem::take(&mut *self.0.lock())
    }
}
