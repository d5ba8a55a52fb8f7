//! Whether a daemon is asked where bytes lie: not for a while after reading them there has failed.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

/// After a failure, and at most, doubling in between while it goes on failing.
const FIRST_BACKOFF: Duration = Duration::from_secs(30);
const LONGEST_BACKOFF: Duration = Duration::from_mins(10);

/// What is known of direct reads that one daemon points to.
#[derive(Debug, Default)]
pub(super) struct Trust(Mutex<TrustState>);

#[derive(Debug, Default)]
struct TrustState {
    /// Until then nobody tries; none while all is well.
    retry_at: Option<Instant>,
    backoff: Duration,
    failed_at: Option<Instant>,
    /// When something was read there last.
    read_at: Option<Instant>,
}

/// What came is not what the archive says.
#[derive(Debug, thiserror::Error)]
#[error("the bytes are wrong")]
struct WrongBytes;

impl Trust {
    /// Whether to try. After a failure one may at a time, and who doesn't come to it says so.
    pub(super) fn may_try(&self) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        match state.retry_at {
            None => true,
            Some(retry_at) if retry_at > now => false,
            Some(_) => {
                state.retry_at = Some(now + state.backoff);
                true
            }
        }
    }

    /// Who might try didn't come to it, because the daemon had the bytes itself: the next may.
    pub(super) fn note_unused(&self) {
        let mut state = self.lock();
        if state.retry_at.is_some() {
            state.retry_at = Some(Instant::now());
        }
    }

    /// Bytes begin to come.
    pub(super) fn note_reading(&self) {
        self.lock().read_at = Some(Instant::now());
    }

    /// Bytes were wrong: maybe those that were read there.
    pub(super) fn note_broken(&self, daemon: &str) {
        let read_at = self.lock().read_at.take();
        if read_at.is_some_and(|at| at.elapsed() < FIRST_BACKOFF) {
            self.note_failure(daemon, &WrongBytes);
        }
    }

    pub(super) fn note_success(&self, daemon: &str) {
        if self.lock().retry_at.take().is_some() {
            info!(daemon, "Reading where {daemon} points works again");
        }
    }

    pub(super) fn note_failure(&self, daemon: &str, error: &(dyn std::error::Error + 'static)) {
        let mut state = self.lock();
        let now = Instant::now();
        // Others that were under way fail too.
        if state
            .retry_at
            .is_some_and(|retry_at| retry_at > now + state.backoff / 2)
            && state
                .failed_at
                .is_some_and(|at| now < at + state.backoff / 2)
        {
            return;
        }
        let is_again = state
            .failed_at
            .is_some_and(|at| now < at + state.backoff.saturating_mul(4));
        state.backoff = if is_again {
            (state.backoff * 2).min(LONGEST_BACKOFF)
        } else {
            FIRST_BACKOFF
        };
        state.failed_at = Some(now);
        state.retry_at = Some(now + state.backoff);
        let backoff_seconds = state.backoff.as_secs();
        warn!(
            daemon,
            error,
            backoff_seconds,
            "Reading where {daemon} points fails: everything comes from there"
        );
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TrustState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAEMON: &str = "http://daemon";

    fn fail(trust: &Trust) {
        trust.note_failure(DAEMON, &std::io::Error::other("refused"));
    }

    #[test]
    fn wrong_bytes_count_only_where_some_were_read_lately() {
        let trust = Trust::default();
        trust.note_broken(DAEMON);
        assert!(trust.may_try());

        trust.note_reading();
        trust.note_broken(DAEMON);
        assert!(!trust.may_try());
    }

    /// As if the backoff were over.
    fn skip_backoff(trust: &Trust) {
        let backoff = trust.lock().backoff;
        let mut state = trust.lock();
        state.retry_at = Some(Instant::now());
        state.failed_at = state.failed_at.and_then(|at| at.checked_sub(backoff));
    }

    #[test]
    fn after_a_failure_one_tries_at_a_time() {
        let trust = Trust::default();
        assert!(trust.may_try() && trust.may_try());

        fail(&trust);
        assert!(!trust.may_try());
        skip_backoff(&trust);
        assert!(trust.may_try());
        assert!(!trust.may_try());
        trust.note_unused();
        assert!(trust.may_try());
        assert!(!trust.may_try());

        trust.note_success(DAEMON);
        assert!(trust.may_try() && trust.may_try());
    }

    #[test]
    fn pauses_grow_with_each_failure_but_not_with_each_of_those_at_once() {
        let trust = Trust::default();
        for _ in 0..5 {
            fail(&trust);
        }
        assert_eq!(trust.lock().backoff, FIRST_BACKOFF);

        skip_backoff(&trust);
        assert!(trust.may_try());
        fail(&trust);
        assert_eq!(trust.lock().backoff, FIRST_BACKOFF * 2);
        for _ in 0..9 {
            skip_backoff(&trust);
            fail(&trust);
        }
        assert_eq!(trust.lock().backoff, LONGEST_BACKOFF);
    }
}
