//! Random numbers and durations: the only source of chance.
//!
//! Ids and nonces must be unique among all daemons of a store. A generator that is seeded from the
//! clock can't promise that. The key of a [`RandomState`] comes from the operating system.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Returns a random number that no other call returns, in this daemon or another. Don't use it for
/// secrets.
pub fn random_number() -> u64 {
    RandomState::new().hash_one(0_u8)
}

/// Returns a random fraction from 0 to just below 1.
pub fn random_fraction() -> f64 {
    let random = u32::try_from(random_number() & 0xFFFF).unwrap_or(0);
    f64::from(random) / 65_536.0
}

/// Returns a random duration between half of `longest` and `longest`. So work that began together
/// isn't repeated together.
pub fn jitter(longest: Duration) -> Duration {
    longest.mul_f64(0.5 + 0.5 * random_fraction())
}
