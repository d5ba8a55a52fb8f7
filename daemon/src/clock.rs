//! The time of day.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in seconds since the epoch; 0 where the clock is before it.
pub(crate) fn seconds_since_epoch() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}
