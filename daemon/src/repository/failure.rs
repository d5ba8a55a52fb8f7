//! [`Failure`]: why work on a repository fails, since when, and when it is tried again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::RepositoryError;
use crate::base::seconds_since_epoch;
use crate::publish::LfsError;

/// Why the last run failed, and when the next may begin.
#[derive(Clone, Debug)]
pub(crate) struct Failure<E> {
    pub(crate) error: E,
    /// When the runs began to fail, in seconds since the epoch.
    pub(crate) since: u64,
    /// The number of failed runs since the last success or explicit request.
    pub(crate) tries: u32,
    /// When the backoff ends. Until then, only an explicit request starts a run.
    pub(super) next_try: Instant,
    /// When the last run ended, in seconds since the epoch.
    pub(super) last_try: u64,
}

/// The failure of a run of a repository's task.
pub(crate) type RunFailure = Failure<RepositoryError>;
/// The failure of a run that makes an LFS archive.
pub(crate) type LfsFailure = Failure<Arc<LfsError>>;

impl<E> Failure<E> {
    /// Returns the failure of a run that ends now. `before` is that of the run before, and
    /// `backoff` returns how long to wait after so many tries.
    pub(super) fn after(
        before: Option<&Self>,
        error: E,
        backoff: impl FnOnce(u32) -> Duration,
    ) -> Self {
        let now = seconds_since_epoch();
        let tries = before.map_or(0, |before| before.tries).saturating_add(1);
        Self {
            error,
            since: before.map_or(now, |before| before.since),
            tries,
            next_try: Instant::now() + backoff(tries),
            last_try: now,
        }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.next_try <= Instant::now()
    }

    /// Returns when the next run may begin, in seconds since the epoch.
    pub(crate) fn next_try_at(&self) -> u64 {
        since_epoch(self.next_try)
    }
}

impl RunFailure {
    /// Returns whether cloning or updating failed and is in backoff.
    pub(crate) fn blocks_update(&self) -> bool {
        self.error.is_of_mirror() && !self.is_due()
    }

    /// Returns whether publishing failed and is in backoff.
    pub(super) fn blocks_publish(&self) -> bool {
        !self.error.is_of_mirror() && !self.error.is_permanent() && !self.is_due()
    }
}

/// Converts a time to seconds since the epoch, rounded up.
pub(super) fn since_epoch(due: Instant) -> u64 {
    let left = due.saturating_duration_since(Instant::now());
    seconds_since_epoch() + left.as_secs() + u64::from(left.subsec_nanos() > 0)
}
