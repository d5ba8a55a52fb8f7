//! [`LastExamination`]: when a mirror was last examined for damage.

use std::time::{Duration, Instant};

/// How long after an examination there is no other one, as a multiple of its duration. Examinations
/// thus take at most a twentieth of the time. To examine a very large mirror takes minutes.
const PAUSE_FACTOR: u32 = 20;
/// An examination that takes at most this long needs no pause: failed runs have their own backoff.
const SHORT_EXAMINATION: Duration = Duration::from_secs(1);

/// The end and the duration of an examination.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastExamination {
    ended: Instant,
    took: Duration,
}

impl LastExamination {
    /// Returns an examination that began at `began` and ends now.
    pub(super) fn since(began: Instant) -> Self {
        Self {
            ended: Instant::now(),
            took: began.elapsed(),
        }
    }

    pub(super) fn is_recent(&self) -> bool {
        self.took > SHORT_EXAMINATION && self.ended.elapsed() < self.took * PAUSE_FACTOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examinations_take_at_most_a_twentieth_of_the_time() {
        let examined = |took: u64, ago: u64| LastExamination {
            ended: Instant::now()
                .checked_sub(Duration::from_secs(ago))
                .unwrap(),
            took: Duration::from_secs(took),
        };

        assert!(examined(6, 110).is_recent());
        assert!(!examined(6, 130).is_recent());
        assert!(!examined(1, 0).is_recent());
    }
}
