//! Random pauses, so that many mounts don't ask in step.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// A random duration between half of `most` and `most`.
pub(crate) fn jitter(most: Duration) -> Duration {
    // Each RandomState has a key of its own: random enough to spread requests.
    let random = u32::try_from(RandomState::new().hash_one(0_u8) & 0xFFFF).unwrap_or(0);
    most / 2 + most / 2 * random / 0x1_0000
}
