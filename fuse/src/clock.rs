//! Times in seconds since the epoch, as reports and the cache have them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the current time in seconds since the epoch.
pub(crate) fn now() -> u64 {
    seconds_since_epoch(SystemTime::now())
}

/// Returns a time in seconds since the epoch.
pub(crate) fn seconds_since_epoch(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
