//! [`Backoff`]: the pause after a failure doubles up to a limit.

use std::time::Duration;

use super::random_fraction;

/// How long to wait after a failure before the next try.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The pause after the first failure.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Backoff {
    /// Returns the pause after failure number `tries`, counted from 1. Each is twice as long as the
    /// one before, up to the longest.
    pub fn doubled(self, tries: u32) -> Duration {
        let doublings = tries.saturating_sub(1).min(20);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    /// Returns the pause after failure number `tries` with random jitter: between three quarters
    /// and all of [`Backoff::doubled`]. So work that failed together isn't retried together.
    pub fn with_jitter(self, tries: u32) -> Duration {
        self.doubled(tries).mul_f64(0.75 + 0.25 * random_fraction())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_the_limit_with_jitter() {
        let backoff = Backoff {
            first: Duration::from_secs(5),
            longest: Duration::from_hours(1),
        };
        for (tries, whole) in [(1, 5), (2, 10), (3, 20), (4, 40), (11, 3600), (4000, 3600)] {
            let whole = Duration::from_secs(whole);
            assert_eq!(backoff.doubled(tries), whole);
            let pauses: Vec<_> = (0..50).map(|_| backoff.with_jitter(tries)).collect();

            let is_near = |pause: &Duration| (whole * 3 / 4..=whole).contains(pause);
            assert!(pauses.iter().all(is_near), "{tries}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }
}
