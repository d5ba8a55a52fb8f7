//! The schedule of the attempts of one fetch, and the time at which it gives up.

use std::pin::pin;
use std::time::Duration;

use cachewfs_base::{Backoff, jitter};
use tokio::time::{Instant, sleep};

use super::Segment;
use crate::awake;
use crate::fetch::FetchError;
use crate::traffic::Purpose;

/// The backoff after a failed attempt lasts at most this long.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(50),
    longest: Duration::from_secs(3),
};
/// How long a reader waits while no daemon sends a byte, with the default `read_timeout`.
///
/// A thread that waits for an answer of the mount can't be frozen, so a suspend fails if a reader
/// waits at that moment, unless `cachewfs before-sleep` came first. The kernel gives up after 20 s.
/// So a mount that lost its network must soon let go of its readers: then the next try works.
const LONGEST_SILENCE: Duration = Duration::from_secs(15);

/// The schedule of the attempts of one fetch, or the time limit of one read.
pub(super) struct Retry<'a> {
    segment: &'a Segment,
    purpose: Purpose,
    /// The number of attempts that failed.
    pub(super) failed: usize,
    started: Instant,
    /// The fetch doesn't give up before this, because the process was stopped.
    earliest_end: Instant,
}

impl<'a> Retry<'a> {
    pub(super) fn new(segment: &'a Segment, purpose: Purpose) -> Self {
        let started = Instant::now();
        Self {
            segment,
            purpose,
            failed: 0,
            started,
            earliest_end: started,
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
    pub(super) async fn limit<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, FetchError> {
        // The end moves when a daemon sends something, perhaps for another reader.
        let end = |earliest| {
            // An attempt may end right after the stop, and its successor counts from now on.
            self.earliest_end = self.earliest_end.max(earliest);
            self.end()
        };
        let outcome = awake::until(pin!(work), end).await;
        outcome.ok_or_else(|| self.timed_out())
    }

    fn deadline(&self) -> Instant {
        self.started + self.segment.backend.read_timeout
    }

    /// Returns when the fetch gives up, if nothing arrives until then.
    fn end(&self) -> Instant {
        if self.purpose == Purpose::Background {
            // Nobody waits in the kernel, so a restart of the daemon may take its time.
            return self.deadline().max(self.earliest_end);
        }
        let heard_at = self.segment.backend.traffic.heard_at();
        let quiet_since = heard_at.map_or(self.started, |at| at.max(self.started));
        let silent_at = quiet_since + longest_silence(self.segment.backend.read_timeout);
        silent_at.min(self.deadline()).max(self.earliest_end)
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
        let failures = u32::try_from(self.failed + 1).unwrap_or(u32::MAX);
        let pause = jitter(BACKOFF.doubled(failures));
        if Instant::now() + pause >= self.end() {
            return Err(error);
        }
        let repo = self.segment.location().repo;
        let traffic = &self.segment.backend.traffic;
        traffic.meter(Some(&repo), self.purpose).count_retry();
        self.failed += 1;
        self.limit(sleep(pause)).await
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
