//! Traces for OpenTelemetry: what was done for which request, sent over OTLP (HTTP, protobuf).
//!
//! ```text
//! config    where traces go: the file's [tracing], and the standard variables of the environment
//! spans     every span that there is; the rest of the daemon makes them with these functions
//! cause     on whose behalf a job runs that hangs off no request
//! export    batches of spans as messages to the collector
//! start     the layer that makes traces of spans, and their end
//! ```
//!
//! Spans are `tracing` spans with a target of their own. Without a collector no layer takes that target, so
//! that each costs a look at an atomic. The log never shows them. No span says what is secret: none has a
//! path, a query, a header or the text of an error, only names that are fixed and names of repositories.

mod cause;
mod config;
mod export;
mod spans;
mod start;

pub(crate) use cause::{Cause, FirstCause};
pub use config::{ExportHeaders, TracingConfig};
pub(crate) use spans::{
    RequestParts, Route, check_span, end_job, end_request, git_span, job_span, note_answer,
    note_error, note_exit, note_status, note_tier, note_wait, part_span, pass_on_span,
    request_span, upstream_span,
};
pub use start::{TRACE_TARGET, Traces, TracesError};
