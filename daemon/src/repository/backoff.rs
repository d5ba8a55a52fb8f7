//! Pauses after failures: they double up to a limit, and differ by chance.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// A fraction by chance, from 0 to just below 1: repositories that fail together are not to be tried again together.
pub(super) fn chance() -> f64 {
    // Each RandomState has a key of its own: random enough to spread work.
    let random = u32::try_from(RandomState::new().hash_one(0_u8) & 0xFFFF).unwrap_or(0);
    f64::from(random) / 65_536.0
}

/// The pause after the failure number `tries`, counted from 1: between three quarters of what
/// doubling gives and all of it; never longer than `longest`.
pub(crate) fn pause(tries: u32, first: Duration, longest: Duration) -> Duration {
    let doublings = tries.saturating_sub(1).min(20);
    let doubled = first.saturating_mul(1 << doublings).min(longest);
    doubled.mul_f64(0.75 + 0.25 * chance())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_are_never_all_alike() {
        let (first, longest) = (Duration::from_secs(5), Duration::from_hours(1));
        for (tries, whole) in [(1, 5), (2, 10), (3, 20), (4, 40), (11, 3600), (4000, 3600)] {
            let whole = Duration::from_secs(whole);
            let pauses: Vec<_> = (0..50).map(|_| pause(tries, first, longest)).collect();

            let is_near = |pause: &Duration| (whole * 3 / 4..=whole).contains(pause);
            assert!(pauses.iter().all(is_near), "{tries}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }
}
