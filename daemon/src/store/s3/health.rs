//! Whether a bucket answers: while it doesn't, who asks is told so at once, and only now and then one of
//! them tries.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Each request is tried so often.
const TRIES: u32 = 4;
/// After the first outage, and at most, doubling in between.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is known of a bucket's health.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Option<Outage>>);

#[derive(Debug)]
struct Outage {
    /// Until then nobody tries.
    until: Instant,
    pause: Duration,
}

impl Health {
    /// How often a request may be tried. In an outage one may at a time, once, who must note the outcome.
    pub(super) fn tries(&self) -> u32 {
        let mut outage = self.lock();
        match &mut *outage {
            None => TRIES,
            Some(outage) if outage.until > Instant::now() => 0,
            Some(outage) => {
                outage.until = Instant::now() + outage.pause;
                1
            }
        }
    }

    pub(super) fn note_answer(&self) {
        if self.lock().take().is_some() {
            tracing::info!("The bucket of the store answers again");
        }
    }

    /// Notes that a request failed that was tried as often as it should.
    pub(super) fn note_outage(&self) {
        let mut outage = self.lock();
        let pause = match &*outage {
            None => {
                tracing::warn!("The bucket of the store does not answer");
                FIRST_PAUSE
            }
            // Others that were under way fail too.
            Some(outage) if outage.until > Instant::now() + outage.pause / 2 => return,
            Some(outage) => (outage.pause * 2).min(LONGEST_PAUSE),
        };
        let until = Instant::now() + pause;
        *outage = Some(Outage { until, pause });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Outage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_an_outage_one_tries_at_a_time() {
        let health = Health::default();
        assert_eq!([health.tries(), health.tries()], [TRIES, TRIES]);

        health.note_outage();
        assert_eq!(health.tries(), 0);
        health.lock().as_mut().unwrap().until = Instant::now();
        assert_eq!([health.tries(), health.tries()], [1, 0]);

        health.note_answer();
        assert_eq!([health.tries(), health.tries()], [TRIES, TRIES]);
    }
}
