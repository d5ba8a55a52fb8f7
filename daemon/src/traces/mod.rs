//! Traces for OpenTelemetry: the work that the daemon does for each request. The program that
//! starts the daemon sends them.
//!
//! ```text
//! config    the section [tracing] and the standard variables of the environment
//! spans     functions that make all spans; the rest of the daemon calls them
//! cause     the link from a job to the request that caused it
//! target    what sets these spans apart from those of the log
//! links     the seam to the program, for parents in other processes and in the past
//! ```
//!
//! Spans are `tracing` spans with a target of their own, which the log never shows. Without a
//! collector no layer takes that target, so a span costs one read of an atomic.
//!
//! No span contains a secret. Spans have fixed names, names of hosts and repositories, ids and
//! numbers, but never a path, a query, a header or the text of an error.

mod cause;
mod config;
mod links;
mod spans;
mod target;

pub(crate) use cause::{Cause, FirstCause};
pub use config::{ExportHeaders, TracingConfig};
pub use links::TraceLinks;
pub(crate) use links::link_by;
pub(crate) use spans::{
    RequestParts, check_span, end_job, end_request, git_span, job_span, note_answer, note_error,
    note_exit, note_status, note_tier, note_wait, pass_on_span, request_span, step_span,
    upstream_span,
};
pub use target::TRACE_TARGET;
