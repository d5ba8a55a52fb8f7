//! The backoff after failures: it doubles up to a limit and has random jitter.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Returns a random fraction from 0 to just below 1. It keeps repositories that failed together
/// from being retried together.
pub(super) fn random_fraction() -> f64 {
    // Each `RandomState` has a random key, which is good enough to spread work.
    let random = u32::try_from(RandomState::new().hash_one(0_u8) & 0xFFFF).unwrap_or(0);
    f64::from(random) / 65_536.0
}

/// Returns how long to wait after failure number `tries`, counted from 1: at least three quarters
/// of the doubled time, at most all of it, and never more than `longest`.
pub(crate) fn delay(tries: u32, first: Duration, longest: Duration) -> Duration {
    let doublings = tries.saturating_sub(1).min(20);
    let doubled = first.saturating_mul(1 << doublings).min(longest);
    doubled.mul_f64(0.75 + 0.25 * random_fraction())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_the_limit_with_jitter() {
        let (first, longest) = (Duration::from_secs(5), Duration::from_hours(1));
        for (tries, whole) in [(1, 5), (2, 10), (3, 20), (4, 40), (11, 3600), (4000, 3600)] {
            let whole = Duration::from_secs(whole);
            let delays: Vec<_> = (0..50).map(|_| delay(tries, first, longest)).collect();

            let is_near = |delay: &Duration| (whole * 3 / 4..=whole).contains(delay);
            assert!(delays.iter().all(is_near), "{tries}: {delays:?}");
            assert!(delays.iter().any(|delay| *delay != delays[0]));
        }
    }
}
