//! [`Moment`]: the time of an event, for reports.

use std::time::Duration;

use cachewfs_base::seconds_since_epoch;
use rustix::time::{ClockId, clock_gettime};

/// The time of an event in this process, for reports.
///
/// It is right as soon as the machine's clock is: a machine may start with a wrong clock, and sets
/// it once it has a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The time since the machine started, with the time in which it was suspended.
    uptime: Duration,
}

impl Moment {
    pub(crate) fn now() -> Self {
        let uptime = clock_gettime(ClockId::Boottime);
        Self {
            // It is never negative.
            uptime: uptime.try_into().unwrap_or_default(),
        }
    }

    /// Returns the moment that another process of this machine has in seconds since the epoch.
    pub(crate) fn at(since_epoch: u64) -> Self {
        let passed = Duration::from_secs(seconds_since_epoch().saturating_sub(since_epoch));
        let uptime = Self::now().uptime.saturating_sub(passed);
        Self { uptime }
    }

    /// Returns the time in seconds since the epoch, by the clock as it is set now.
    pub(crate) fn seconds_since_epoch(self) -> u64 {
        self.seconds_before(seconds_since_epoch(), Self::now())
    }

    fn seconds_before(self, wall: u64, present: Self) -> u64 {
        wall.saturating_sub(present.uptime.saturating_sub(self.uptime).as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_right_after_the_clock_was_set() {
        let [event, present] = [100, 160].map(|seconds| Moment {
            uptime: Duration::from_secs(seconds),
        });
        // While the clock was wrong, then right, then set back by hours.
        for wall in [160, 1_800_000_000, 1_799_990_000] {
            assert_eq!(event.seconds_before(wall, present), wall - 60);
        }
        let handed_over = Moment::at(seconds_since_epoch() - 7).seconds_since_epoch();
        assert!(
            (7..=9).contains(&(seconds_since_epoch() - handed_over)),
            "{handed_over}"
        );
    }
}
