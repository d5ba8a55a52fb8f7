//! The time in seconds since the epoch, as reports and the cache have it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the current time in seconds since the epoch.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
