//! On whose behalf a job runs: its span belongs to the trace of who asked, though it hangs off no request.

use std::sync::{Mutex, PoisonError};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::spans::is_on;

/// Who asked; nobody, for what is periodic, or where nothing is traced.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cause(Option<SpanContext>);

impl Cause {
    /// The span that is under way on this thread. It is not kept open by this.
    pub(crate) fn current() -> Self {
        if !is_on() {
            return Self::default();
        }
        let context = Span::current().context();
        let span = context.span().span_context().clone();
        Self(span.is_valid().then_some(span))
    }

    /// Makes `span`, which must be new, one of the same trace.
    pub(super) fn adopt(&self, span: &Span) {
        if let Some(parent) = &self.0 {
            let context = Context::new().with_remote_span_context(parent.clone());
            // It fails where nothing is traced.
            span.set_parent(context).ok();
        }
    }
}

/// Who asked first for what has not begun yet.
#[derive(Debug, Default)]
pub(crate) struct FirstCause(Mutex<Cause>);

impl FirstCause {
    pub(crate) fn new(cause: Cause) -> Self {
        Self(Mutex::new(cause))
    }

    /// Notes the span that is under way on this thread, unless somebody was there first.
    pub(crate) fn note(&self) {
        let cause = Cause::current();
        if cause.0.is_some() {
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if first.0.is_none() {
                *first = cause;
            }
        }
    }

    /// What begins now is on their behalf.
    pub(crate) fn take(&self) -> Cause {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
