//! What is known of a repository while it is worked on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cachewfs_format::{ObjectId, SnapshotId};

use super::RepositoryError;
use super::backoff::pause;
use crate::MirrorsConfig;
use crate::clock::seconds_since_epoch;
use crate::metrics::JobClass;
use crate::publish::PublishOutcome;

/// The longest pause before upstream is asked again for a repository that it doesn't have, while
/// there is demand: someone may be about to create it. And the longest after the store was away, which
/// costs no upstream anything.
const LONGEST_SHORT: Duration = Duration::from_mins(1);

/// What the mirror is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MirrorState {
    /// There is none yet.
    Empty,
    /// It is made from the snapshot in the store.
    Restoring,
    /// Its first clone runs.
    Cloning,
    /// It is there.
    Ready,
    /// There is none, because cloning failed.
    Failed,
}

impl MirrorState {
    pub(crate) const ALL: [Self; 5] = [
        Self::Empty,
        Self::Restoring,
        Self::Cloning,
        Self::Ready,
        Self::Failed,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Restoring => "restoring",
            Self::Cloning => "cloning",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }
}

/// Why the last run failed, and when the next may begin.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) error: RepositoryError,
    /// Since when it fails, in seconds since the epoch.
    pub(crate) since: u64,
    /// How many runs failed since the last that did not, or since somebody asked for one.
    pub(crate) tries: u32,
    /// Until then, only somebody's explicit wish begins a run.
    pub(crate) next_try: Instant,
    /// When the last run ended, in seconds since the epoch.
    pub(super) last_try: u64,
}

impl Failure {
    pub(super) fn is_due(&self) -> bool {
        self.next_try <= Instant::now()
    }

    /// Whether it is too early to try again to make or update a mirror, without somebody's wish.
    pub(crate) fn holds_mirror_back(&self) -> bool {
        self.error.is_of_mirror() && !self.is_due()
    }

    /// Whether it is too early to try again a publish that failed.
    pub(super) fn holds_publish_back(&self) -> bool {
        !self.error.is_of_mirror() && !self.error.is_permanent() && !self.is_due()
    }

    /// When the next run may begin, in seconds since the epoch.
    pub(crate) fn next_try_at(&self) -> u64 {
        since_epoch(self.next_try)
    }
}

/// The job that a repository's task is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doing {
    pub(crate) class: JobClass,
    /// Whether its turn has come.
    pub(crate) is_running: bool,
    pub(crate) since: Instant,
    /// The daemon that is at it already, and that is waited for.
    pub(crate) waits_for: Option<Arc<str>>,
}

/// What is known of a repository.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) state: MirrorState,
    /// What the last run ended with, if it failed.
    pub(crate) failure: Option<Failure>,
    /// When upstream was last asked with success, in seconds since the epoch.
    pub(crate) updated_at: Option<u64>,
    /// The commit of the mirror's HEAD after its last update.
    pub(crate) head: Option<ObjectId>,
    /// What the first run published that did.
    pub(crate) first_snapshot: Option<SnapshotId>,
    /// How many runs have ended.
    pub(crate) runs: u64,
    /// What is done just now.
    pub(crate) doing: Option<Doing>,
    /// When the next run begins unless asked for earlier.
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
            doing: None,
            next_run,
        }
    }

    pub(super) fn mirror_is_fresh(&mut self, head: Option<ObjectId>) {
        self.state = MirrorState::Ready;
        self.head = head;
        self.updated_at = Some(seconds_since_epoch());
    }

    /// Whether the last run failed, and somebody should know. A name that upstream doesn't have is
    /// nobody's trouble but of who asked for it, and forgotten soon.
    pub(crate) fn is_failing(&self) -> bool {
        self.failure.is_some() && !self.is_unknown()
    }

    /// Whether upstream has no such repository, and never had.
    pub(crate) fn is_unknown(&self) -> bool {
        let failure = self.failure.as_ref();
        let is_not_found = failure.is_some_and(|failure| failure.error.is_not_found());
        is_not_found && self.state != MirrorState::Ready
    }

    /// When the next run begins unless asked for earlier, in seconds since the epoch.
    pub(crate) fn next_run_at(&self) -> u64 {
        since_epoch(self.next_run)
    }

    /// The interval is another one: the next run is due within it.
    pub(super) fn run_within(&mut self, interval: Duration) {
        if self.failure.is_none() {
            self.next_run = self.next_run.min(Instant::now() + interval);
        }
    }

    /// Notes what is done from now on.
    pub(super) fn begin(&mut self, class: JobClass, is_running: bool) {
        self.doing = Some(Doing {
            class,
            is_running,
            since: Instant::now(),
            waits_for: None,
        });
    }

    /// Notes that what is done has to wait for another daemon.
    pub(super) fn wait_for(&mut self, daemon: Arc<str>) {
        if let Some(doing) = &mut self.doing {
            doing.waits_for = Some(daemon);
        }
    }

    /// Notes that nothing is done any more.
    pub(super) fn end(&mut self) {
        self.doing = None;
    }

    /// Somebody wishes a run: what failed before makes no pause longer.
    pub(super) fn forget_tries(&mut self) {
        if let Some(failure) = &mut self.failure {
            failure.tries = 0;
        }
    }

    /// Notes that a run went well.
    pub(super) fn succeed(&mut self, published: PublishOutcome, interval: Duration) {
        self.failure = None;
        self.first_snapshot.get_or_insert(published.snapshot);
        self.runs += 1;
        self.doing = None;
        self.next_run = Instant::now() + interval;
    }

    /// Notes that the mirror is up to date; publishing, which failed, is not yet due again.
    pub(super) fn succeed_in_part(&mut self, interval: Duration) {
        self.runs += 1;
        self.doing = None;
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
        self.doing = None;
        let pause = if error.is_permanent() {
            interval
        } else {
            let is_short = error.is_not_found() || error.is_store_away();
            let longest = is_short.then_some(LONGEST_SHORT);
            let longest = longest.unwrap_or(config.retry_max).min(config.retry_max);
            pause(tries, config.retry_first, longest)
        };
        let next_try = Instant::now() + pause;
        self.failure = Some(Failure {
            error,
            since: before.map_or(now, |before| before.since),
            tries,
            next_try,
            last_try: now,
        });
        if matches!(self.state, MirrorState::Restoring | MirrorState::Cloning) {
            self.state = MirrorState::Failed;
        }
        // Publishing alone is no reason to leave the mirror as it is.
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

/// When something is due, in seconds since the epoch, rounded up.
pub(super) fn since_epoch(due: Instant) -> u64 {
    let left = due.saturating_duration_since(Instant::now());
    seconds_since_epoch() + left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::publish::PublishError;
    use crate::store::{S3Error, TierError};

    const INTERVAL: Duration = Duration::from_mins(1);

    fn published() -> PublishOutcome {
        let commit = ObjectId::from_bytes(&[1; 20]).unwrap();
        PublishOutcome {
            snapshot: SnapshotId::first(commit),
            moved: true,
        }
    }

    fn pause_of(status: &Status) -> f64 {
        (status.next_run - Instant::now()).as_secs_f64()
    }

    #[test]
    fn a_store_that_comes_back_is_not_waited_for_long() {
        for source in [S3Error::Down, S3Error::NotProbed] {
            let mut status = Status::new(MirrorState::Ready, Instant::now());
            let source = Box::new(source);
            let away = PublishError::Store(TierError::S3List { source }.into());
            let away = RepositoryError::Publish(Arc::new(away));
            for _ in 0..30 {
                let config = MirrorsConfig::default();
                status.fail(away.clone(), Duration::from_hours(1), &config);
            }

            assert!(pause_of(&status) <= 60.0, "{away:?}");
        }
    }

    #[test]
    fn a_wish_and_a_success_make_pauses_short_again() {
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
