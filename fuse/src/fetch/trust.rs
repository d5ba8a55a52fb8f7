//! Decides whether a request offers a daemon to redirect it to the bucket (a direct read).
//!
//! Each daemon has a circuit breaker. After a failed direct read, the mount offers none to this
//! daemon until a backoff has passed. Then one request at a time tries again:
//!
//! ```text
//!          failure                  backoff over, one request tries
//! closed ───────────► open ◄─────────────────────────────────────────► half open
//!    ▲                        failure: the backoff doubles                 │
//!    └──────────────────────────── success ────────────────────────────────┘
//! ```

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{info, warn};

/// How long after a first failure no direct read is offered. It doubles with each further failure.
const FIRST_BACKOFF: Duration = Duration::from_secs(30);
/// At most this long a backoff.
const LONGEST_BACKOFF: Duration = Duration::from_mins(10);

/// The circuit breaker for the direct reads of one daemon.
#[derive(Debug, Default)]
pub(super) struct Trust(Mutex<TrustState>);

#[derive(Debug, Default)]
struct TrustState {
    /// The end of the backoff, or `None` if the last direct read succeeded.
    retry_at: Option<Instant>,
    backoff: Duration,
    failed_at: Option<Instant>,
    /// When a direct read last received an answer. Reset once wrong bytes were blamed on it.
    read_at: Option<Instant>,
}

/// Whether a request offers a daemon to redirect it to the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirectOffer {
    /// It doesn't.
    None,
    /// It does, as do others.
    Open,
    /// It does, as the only one after a backoff.
    Trial,
}

/// The bytes of a direct read are not the bytes of the archive.
#[derive(Debug, thiserror::Error)]
#[error("the bytes don't match the archive")]
struct WrongBytes;

impl Trust {
    /// Returns whether a request may offer a direct read.
    ///
    /// After a failure, it returns `Trial` to one caller in each backoff. If that caller then makes
    /// no direct read, it calls [`Trust::note_unused`].
    pub(super) fn offer(&self) -> DirectOffer {
        let mut state = self.0.lock();
        let now = Instant::now();
        match state.retry_at {
            None => DirectOffer::Open,
            Some(retry_at) if retry_at > now => DirectOffer::None,
            Some(_) => {
                // Half open. Pushing the time on keeps other requests away from a bucket that may
                // still be silent: each of them would wait for its timeout before it asks the
                // daemon.
                state.retry_at = Some(now + state.backoff);
                DirectOffer::Trial
            }
        }
    }

    /// Notes that the caller who got the `Trial` made no direct read.
    pub(super) fn note_unused(&self) {
        let mut state = self.0.lock();
        // The daemon failed or sent the bytes itself, which says nothing about the bucket. So the
        // next request may try at once.
        if state.retry_at.is_some() {
            state.retry_at = Some(Instant::now());
        }
    }

    /// Notes that a direct read receives an answer.
    pub(super) fn note_reading(&self) {
        self.0.lock().read_at = Some(Instant::now());
    }

    /// Notes that verification found wrong bytes. They count as a failure after a recent direct
    /// read.
    pub(super) fn note_broken(&self, daemon: &str) {
        // The verifier doesn't know which source sent a byte. `take` blames one direct read once:
        // while the daemon itself sends wrong bytes afterwards, the bucket isn't blamed for them.
        let read_at = self.0.lock().read_at.take();
        if read_at.is_some_and(|at| at.elapsed() < FIRST_BACKOFF) {
            self.note_failure(daemon, &WrongBytes);
        }
    }

    /// Notes that a direct read got all of its bytes: the next requests may try, too.
    pub(super) fn note_success(&self, daemon: &str) {
        if self.0.lock().retry_at.take().is_some() {
            // `failed_at` stays: if direct reads fail again soon, the backoff goes on doubling.
            info!(daemon, "Direct reads by {daemon} work again");
        }
    }

    /// Notes that a direct read failed, and starts a backoff.
    pub(super) fn note_failure(&self, daemon: &str, error: &(dyn std::error::Error + 'static)) {
        let mut state = self.0.lock();
        let now = Instant::now();
        // One outage fails all direct reads in flight. They report within the first half of the
        // backoff, and must not double it each. The failure of a half-open try comes later: it
        // passes this check because the failure before it is at least a whole backoff old.
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
            "A direct read failed: for {backoff_seconds} s, all bytes come from {daemon}"
        );
    }

    /// Pretends that the backoff has passed.
    #[cfg(test)]
    pub(super) fn skip_backoff(&self) {
        let mut state = self.0.lock();
        let backoff = state.backoff;
        state.retry_at = Some(Instant::now());
        state.failed_at = state.failed_at.and_then(|at| at.checked_sub(backoff));
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
    fn wrong_bytes_count_only_after_a_recent_direct_read() {
        let trust = Trust::default();
        trust.note_broken(DAEMON);
        assert_eq!(trust.offer(), DirectOffer::Open);

        trust.note_reading();
        trust.note_broken(DAEMON);
        assert_eq!(trust.offer(), DirectOffer::None);
    }

    #[test]
    fn after_a_failure_one_request_at_a_time_may_try() {
        let trust = Trust::default();
        let offers = || [trust.offer(), trust.offer()];
        assert_eq!(offers(), [DirectOffer::Open; 2]);

        fail(&trust);
        assert_eq!(offers(), [DirectOffer::None; 2]);
        trust.skip_backoff();
        assert_eq!(offers(), [DirectOffer::Trial, DirectOffer::None]);
        trust.note_unused();
        assert_eq!(offers(), [DirectOffer::Trial, DirectOffer::None]);

        trust.note_success(DAEMON);
        assert_eq!(offers(), [DirectOffer::Open; 2]);
    }

    #[test]
    fn the_backoff_doubles_with_each_outage_but_not_with_each_failure_in_it() {
        let trust = Trust::default();
        for _ in 0..5 {
            fail(&trust);
        }
        assert_eq!(trust.0.lock().backoff, FIRST_BACKOFF);

        trust.skip_backoff();
        assert_eq!(trust.offer(), DirectOffer::Trial);
        fail(&trust);
        assert_eq!(trust.0.lock().backoff, FIRST_BACKOFF * 2);
        for _ in 0..9 {
            trust.skip_backoff();
            fail(&trust);
        }
        assert_eq!(trust.0.lock().backoff, LONGEST_BACKOFF);
    }
}
