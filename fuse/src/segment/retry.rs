//! The schedule of the attempts of one fetch, and the time at which it gives up.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::Segment;
use crate::fetch::FetchError;
use crate::traffic::Purpose;

/// How long the first backoff lasts at most. Each further failure doubles it.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// How long any backoff lasts at most.
const LONGEST_BACKOFF: Duration = Duration::from_secs(3);
/// How long a reader waits while no daemon sends a byte, with the default `read_timeout`.
///
/// A thread that waits for the kernel's answer can't be frozen, and a machine gives up to suspend
/// after 20 s. So a mount that lost its network must let go of its readers before that.
const LONGEST_SILENCE: Duration = Duration::from_secs(15);

/// The schedule of the attempts of one fetch, or the time limit of one read.
pub(super) struct Retry<'a> {
    segment: &'a Segment,
    purpose: Purpose,
    /// The number of attempts that failed.
    pub(super) failed: usize,
    started: Instant,
}

impl<'a> Retry<'a> {
    pub(super) fn new(segment: &'a Segment, purpose: Purpose) -> Self {
        Self {
            segment,
            purpose,
            failed: 0,
            started: Instant::now(),
        }
    }

    /// Runs one attempt. Returns `None` after a backoff if it failed and another may succeed.
    pub(super) async fn run<T>(
        &mut self,
        attempt: impl Future<Output = Result<T, FetchError>>,
    ) -> Result<Option<T>, FetchError> {
        match self.limit(attempt).await? {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                self.back_off(error).await?;
                Ok(None)
            }
        }
    }

    /// Waits for `work`, and fails when it is time to give up.
    pub(super) async fn limit<T>(&self, work: impl Future<Output = T>) -> Result<T, FetchError> {
        let mut work = pin!(work);
        loop {
            let end = self.end();
            match timeout_at(end, &mut work).await {
                Ok(outcome) => return Ok(outcome),
                // A daemon sent something in the meantime, perhaps for another reader.
                Err(_) if self.end() > end => {}
                Err(_) => return Err(self.timed_out()),
            }
        }
    }

    fn deadline(&self) -> Instant {
        self.started + self.segment.backend.read_timeout
    }

    /// Returns when the fetch gives up, if nothing arrives until then.
    fn end(&self) -> Instant {
        if self.purpose == Purpose::Background {
            // Nobody waits in the kernel, so a restart of the daemon may take its time.
            return self.deadline();
        }
        let heard_at = self.segment.backend.traffic.heard_at();
        let quiet_since = heard_at.map_or(self.started, |at| at.max(self.started));
        (quiet_since + longest_silence(self.segment.backend.read_timeout)).min(self.deadline())
    }

    fn timed_out(&self) -> FetchError {
        let read_timeout = self.segment.backend.read_timeout;
        if Instant::now() >= self.deadline() {
            let seconds = read_timeout.as_secs();
            return FetchError::TimedOut { seconds };
        }
        let seconds = longest_silence(read_timeout).as_secs();
        FetchError::Silent { seconds }
    }

    /// Sleeps before the next attempt. Returns `error` if it is permanent, or if the next attempt
    /// would start too late.
    async fn back_off(&mut self, error: FetchError) -> Result<(), FetchError> {
        if !error.is_transient() {
            return Err(error);
        }
        let doubled = FIRST_BACKOFF.saturating_mul(1 << self.failed.min(10));
        let pause = crate::jitter::jitter(doubled.min(LONGEST_BACKOFF));
        if Instant::now() + pause >= self.end() {
            return Err(error);
        }
        let repo = self.segment.location().repo;
        let traffic = &self.segment.backend.traffic;
        traffic.meter(Some(&repo), self.purpose).count_retry();
        self.failed += 1;
        sleep(pause).await;
        Ok(())
    }
}

/// Returns how long a reader waits while nothing arrives.
fn longest_silence(read_timeout: Duration) -> Duration {
    // A person who raises `read_timeout` wants to sit out longer outages, and one who lowers it
    // wants no longer ones.
    LONGEST_SILENCE.max(read_timeout / 4).min(read_timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_ends_a_fetch_before_a_suspend_fails_unless_a_person_wants_more() {
        for (read_timeout, silence) in [(60, 15), (5, 5), (30, 15), (600, 150)] {
            let read_timeout = Duration::from_secs(read_timeout);
            assert_eq!(longest_silence(read_timeout).as_secs(), silence);
        }
    }
}
