//! The status of a repository: the state of its mirror, its failures and its next run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cachewfs_format::{ObjectId, SnapshotId};

use super::{MirrorState, RepositoryError};
use crate::base::{Backoff, seconds_since_epoch};
use crate::metrics::JobClass;
use crate::mirror::MirrorsConfig;
use crate::publish::PublishOutcome;

/// The longest backoff after two kinds of failures, which are retried soon. If upstream doesn't
/// have the repository, somebody may be about to create it. If the store was unreachable, a retry
/// costs upstream nothing.
const MAX_SHORT_BACKOFF: Duration = Duration::from_mins(1);

/// Why the last run failed, and when the next may begin.
#[derive(Clone, Debug)]
pub(crate) struct RunFailure {
    pub(crate) error: RepositoryError,
    /// When the runs began to fail, in seconds since the epoch.
    pub(crate) since: u64,
    /// The number of failed runs since the last success or explicit request.
    pub(crate) tries: u32,
    /// When the backoff ends. Until then, only an explicit request starts a run.
    pub(crate) next_try: Instant,
    /// When the last run ended, in seconds since the epoch.
    pub(super) last_try: u64,
}

impl RunFailure {
    pub(super) fn is_due(&self) -> bool {
        self.next_try <= Instant::now()
    }

    /// Returns whether cloning or updating failed and is in backoff.
    pub(crate) fn blocks_update(&self) -> bool {
        self.error.is_of_mirror() && !self.is_due()
    }

    /// Returns whether publishing failed and is in backoff.
    pub(super) fn blocks_publish(&self) -> bool {
        !self.error.is_of_mirror() && !self.error.is_permanent() && !self.is_due()
    }

    /// Returns when the next run may begin, in seconds since the epoch.
    pub(crate) fn next_try_at(&self) -> u64 {
        since_epoch(self.next_try)
    }
}

/// The job that a repository's task waits for or runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CurrentJob {
    pub(crate) class: JobClass,
    /// Whether the job runs, rather than waits for its turn.
    pub(crate) is_running: bool,
    pub(crate) since: Instant,
    /// The daemon that does the same job already, and for which this one waits.
    pub(crate) waits_for: Option<Arc<str>>,
}

/// The status of a repository.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) state: MirrorState,
    /// The failure of the last run, if it failed.
    pub(crate) failure: Option<RunFailure>,
    /// When upstream was last asked successfully, in seconds since the epoch.
    pub(crate) updated_at: Option<u64>,
    /// The commit of the mirror's HEAD after its last update.
    pub(crate) head: Option<ObjectId>,
    /// The snapshot of the first successful publish since the daemon's start.
    pub(crate) first_snapshot: Option<SnapshotId>,
    /// The number of ended runs.
    pub(crate) runs: u64,
    /// The present job, if any.
    pub(crate) current_job: Option<CurrentJob>,
    /// When the next run begins, unless a request starts it earlier.
    pub(super) next_run: Instant,
}

impl Status {
    pub(super) fn new(state: MirrorState, next_run: Instant) -> Self {
        Self {
            state,
            failure: None,
            updated_at: None,
            head: None,
            first_snapshot: None,
            runs: 0,
            current_job: None,
            next_run,
        }
    }

    pub(super) fn mirror_is_fresh(&mut self, head: Option<ObjectId>) {
        self.state = MirrorState::Ready;
        self.head = head;
        self.updated_at = Some(seconds_since_epoch());
    }

    /// Returns whether the last run failed and the operator should know. A name that upstream
    /// doesn't have concerns only the client that requested it, and is forgotten soon.
    pub(crate) fn is_failing(&self) -> bool {
        self.failure.is_some() && !self.is_unknown()
    }

    /// Returns whether upstream has no such repository and there is no mirror of it.
    pub(crate) fn is_unknown(&self) -> bool {
        let failure = self.failure.as_ref();
        let is_not_found = failure.is_some_and(|failure| failure.error.is_not_found());
        is_not_found && self.state != MirrorState::Ready
    }

    /// Returns when the next run begins, in seconds since the epoch.
    pub(crate) fn next_run_at(&self) -> u64 {
        since_epoch(self.next_run)
    }

    /// Moves the next run to at most `interval` from now, because the configured interval changed.
    pub(super) fn run_within(&mut self, interval: Duration) {
        if self.failure.is_none() {
            self.next_run = self.next_run.min(Instant::now() + interval);
        }
    }

    /// Notes the job that the task waits for or runs now.
    pub(super) fn begin(&mut self, class: JobClass, is_running: bool) {
        self.current_job = Some(CurrentJob {
            class,
            is_running,
            since: Instant::now(),
            waits_for: None,
        });
    }

    /// Notes that the present job has to wait for another daemon.
    pub(super) fn wait_for(&mut self, daemon: Arc<str>) {
        if let Some(current_job) = &mut self.current_job {
            current_job.waits_for = Some(daemon);
        }
    }

    /// Notes that the task has no job.
    pub(super) fn end(&mut self) {
        self.current_job = None;
    }

    /// Resets the backoff, because of an explicit request.
    pub(super) fn forget_tries(&mut self) {
        if let Some(failure) = &mut self.failure {
            failure.tries = 0;
        }
    }

    /// Notes a successful run.
    pub(super) fn succeed(&mut self, published: PublishOutcome, interval: Duration) {
        self.failure = None;
        self.first_snapshot.get_or_insert(published.snapshot);
        self.runs += 1;
        self.current_job = None;
        self.next_run = Instant::now() + interval;
    }

    /// Notes that the mirror is up to date, but that publishing failed and is still in backoff.
    pub(super) fn succeed_in_part(&mut self, interval: Duration) {
        self.runs += 1;
        self.current_job = None;
        let next_update = Instant::now() + interval;
        let next_try = self.failure.as_ref().map(|failure| failure.next_try);
        self.next_run = next_try.map_or(next_update, |next_try| next_try.min(next_update));
    }

    /// Notes why a run failed, and when the next is due.
    pub(super) fn fail(
        &mut self,
        error: RepositoryError,
        interval: Duration,
        config: &MirrorsConfig,
    ) {
        let now = seconds_since_epoch();
        let before = self.failure.take();
        let tries = before.as_ref().map_or(0, |before| before.tries);
        let tries = tries.saturating_add(1);
        self.runs += 1;
        self.current_job = None;
        let delay = if error.is_permanent() {
            interval
        } else {
            let is_short = error.is_not_found() || error.is_store_away();
            let longest = is_short.then_some(MAX_SHORT_BACKOFF);
            let longest = longest.unwrap_or(config.retry_max).min(config.retry_max);
            let first = config.retry_first;
            Backoff { first, longest }.with_jitter(tries)
        };
        let next_try = Instant::now() + delay;
        self.failure = Some(RunFailure {
            error,
            since: before.map_or(now, |before| before.since),
            tries,
            next_try,
            last_try: now,
        });
        if matches!(self.state, MirrorState::Restoring | MirrorState::Cloning) {
            self.state = MirrorState::Failed;
        }
        // A failed publish must not stop the updates: git clients still read the mirror.
        let is_of_publish = self
            .failure
            .as_ref()
            .is_some_and(|it| !it.error.is_of_mirror());
        let next_update = Instant::now() + interval;
        self.next_run = if is_of_publish {
            next_try.min(next_update)
        } else {
            next_try
        };
    }
}

/// Converts a time to seconds since the epoch, rounded up.
pub(super) fn since_epoch(due: Instant) -> u64 {
    let left = due.saturating_duration_since(Instant::now());
    seconds_since_epoch() + left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::PublishError;
    use crate::store::{BucketError, TierError};

    const INTERVAL: Duration = Duration::from_mins(1);

    fn published() -> PublishOutcome {
        let commit = ObjectId::from_bytes(&[1; 20]).unwrap();
        PublishOutcome {
            snapshot: SnapshotId::first(commit),
            moved: true,
        }
    }

    /// Returns the seconds until the next run.
    fn pause_of(status: &Status) -> f64 {
        (status.next_run - Instant::now()).as_secs_f64()
    }

    #[test]
    fn a_store_outage_has_a_short_backoff() {
        let mut status = Status::new(MirrorState::Ready, Instant::now());
        let source = BucketError::Outage("the bucket did not answer in time".into());
        let away = PublishError::Store(TierError::BucketList { source }.into());
        let away = RepositoryError::Publish(Arc::new(away));
        for _ in 0..30 {
            let config = MirrorsConfig::default();
            status.fail(away.clone(), Duration::from_hours(1), &config);
        }

        assert!(pause_of(&status) <= 60.0);
    }

    #[test]
    fn an_explicit_request_and_a_success_reset_the_backoff() {
        let mut status = Status::new(MirrorState::Cloning, Instant::now());
        let config = MirrorsConfig::default();
        for _ in 0..30 {
            status.fail(RepositoryError::Busy, INTERVAL, &config);
        }
        let failure = status.failure.clone().unwrap();

        assert_eq!((failure.tries, status.state), (30, MirrorState::Failed));
        assert!(failure.next_try > Instant::now() + Duration::from_mins(40));
        status.forget_tries();
        status.fail(RepositoryError::Busy, INTERVAL, &config);
        assert!(pause_of(&status) <= 5.0);
        assert_eq!(status.failure.as_ref().unwrap().since, failure.since);
        status.succeed(published(), INTERVAL);
        assert!(status.failure.is_none() && pause_of(&status) > 50.0);
    }

    #[test]
    fn a_mirror_is_updated_while_publishing_fails() {
        let mut status = Status::new(MirrorState::Ready, Instant::now());
        let error = PublishError::Raced;
        let error = RepositoryError::Publish(Arc::new(error));
        for _ in 0..30 {
            status.fail(error.clone(), INTERVAL, &MirrorsConfig::default());
        }

        let failure = status.failure.clone().unwrap();
        assert!(!failure.is_due() && failure.next_try > Instant::now() + 10 * INTERVAL);
        assert!(pause_of(&status) <= 60.0);
    }
}
