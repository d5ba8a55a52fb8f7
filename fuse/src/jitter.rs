//! Random durations, so that many mounts don't send their requests at one moment.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Returns a random duration between half of `longest` and `longest`.
pub(crate) fn jitter(longest: Duration) -> Duration {
    // Each `RandomState` has its own random key, which is random enough to spread requests.
    let random = u32::try_from(RandomState::new().hash_one(0_u8) & 0xFFFF).unwrap_or(0);
    longest / 2 + longest / 2 * random / 0x1_0000
}
