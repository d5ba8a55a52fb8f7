//! The target of the spans that are sent.

use tracing::{Level, enabled};

/// The target of all spans that are sent. Only the layer for traces should take it.
pub const TRACE_TARGET: &str = "cachewfsd::traces";

/// Returns whether traces are on. This reads one atomic.
pub(super) fn is_on() -> bool {
    enabled!(target: TRACE_TARGET, Level::INFO)
}
