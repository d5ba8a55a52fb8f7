//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the present time in seconds since the Unix epoch, or 0 if the clock is before the epoch.
pub fn seconds_since_epoch() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}
