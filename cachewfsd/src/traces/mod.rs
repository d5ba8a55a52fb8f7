//! Sends traces to a collector, as OTLP over HTTP. The daemon makes their spans.
//!
//! ```text
//! start     the layer that turns spans into traces, its queue, and its end
//! export    sends batches of spans to the collector
//! links     parents in other processes and in the past
//! ```

mod export;
mod links;
mod start;

pub(crate) use links::Links;
pub use start::{Traces, TracesError};
