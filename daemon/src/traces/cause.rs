//! The link from a job to the request that caused it.
//!
//! A job runs in a task of its own and may outlive the request. Its span still belongs to the
//! request's trace. The link holds the name of the request's span, not the span: the span ends when
//! the request ends.

use http::HeaderMap;
use parking_lot::Mutex;
use tracing::Span;

use super::links::{headers_of, set_parent};
use super::target::is_on;

/// The span of the request that caused a job. It is empty if the job is periodic, or if traces are
/// off.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cause(HeaderMap);

impl Cause {
    /// Returns the current span of this thread.
    pub(crate) fn current() -> Self {
        if !is_on() {
            return Self::default();
        }
        Self(headers_of(&Span::current()))
    }

    /// Makes `span` a child of this cause. `span` must be new.
    pub(super) fn adopt(&self, span: &Span) {
        if !self.0.is_empty() {
            set_parent(span, &self.0);
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
        if !cause.0.is_empty() {
            let mut first = self.0.lock();
            if first.0.is_empty() {
                *first = cause;
            }
        }
    }

    /// Returns the noted cause, for the job that begins now, and forgets it.
    pub(crate) fn take(&self) -> Cause {
        std::mem::take(&mut *self.0.lock())
    }
}
