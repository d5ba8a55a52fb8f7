//! What is known of a repository while it is worked on.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cachewfs_format::{ObjectId, SnapshotId};

use super::RepositoryError;
use super::registry::Outcome;
use crate::metrics::JobClass;

/// The first pause after a failure; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The longest pause after failures.
const LAST_RETRY: Duration = Duration::from_hours(1);

/// What the mirror is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MirrorState {
    /// There is none yet.
    Empty,
    /// Its first clone runs.
    Cloning,
    /// It is there.
    Ready,
    /// There is none, because cloning failed.
    Failed,
}

impl MirrorState {
    pub(crate) const ALL: [Self; 4] = [Self::Empty, Self::Cloning, Self::Ready, Self::Failed];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Cloning => "cloning",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }
}

/// The job that a repository's task is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doing {
    pub(crate) class: JobClass,
    /// Whether its turn has come.
    pub(crate) is_running: bool,
    pub(crate) since: Instant,
}

/// What is known of a repository.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) state: MirrorState,
    /// What the last run ended with, if it failed.
    pub(crate) error: Option<RepositoryError>,
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
    /// How many runs failed since the last that did not.
    pub(crate) failures: u32,
    /// When the next run begins unless asked for earlier.
    pub(crate) next_run: Instant,
}

impl Status {
    pub(super) fn new(state: MirrorState) -> Self {
        Self {
            state,
            error: None,
            updated_at: None,
            head: None,
            first_snapshot: None,
            runs: 0,
            doing: None,
            failures: 0,
            next_run: Instant::now(),
        }
    }

    pub(super) fn mirror_is_fresh(&mut self, head: Option<ObjectId>) {
        self.state = MirrorState::Ready;
        self.head = head;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.updated_at = now.ok().map(|since| since.as_secs());
    }

    /// Whether the last run failed, and somebody should know. A name that upstream doesn't have is
    /// nobody's trouble but of who asked for it, and forgotten soon.
    pub(crate) fn is_failing(&self) -> bool {
        self.error.is_some() && !self.is_unknown()
    }

    /// Whether upstream has no such repository, and never had.
    pub(crate) fn is_unknown(&self) -> bool {
        let is_not_found = self
            .error
            .as_ref()
            .is_some_and(RepositoryError::is_not_found);
        is_not_found && self.state != MirrorState::Ready
    }

    /// The interval is another one: the next run is due within it.
    pub(super) fn run_within(&mut self, interval: Duration) {
        if self.error.is_none() {
            self.next_run = self.next_run.min(Instant::now() + interval);
        }
    }

    /// Notes what is done from now on.
    pub(super) fn begin(&mut self, class: JobClass, is_running: bool) {
        self.doing = Some(Doing {
            class,
            is_running,
            since: Instant::now(),
        });
    }

    /// Notes how a run ended, and when the next is due.
    pub(super) fn end_run(&mut self, outcome: &Outcome, interval: Duration) {
        let error = outcome.as_ref().err().cloned();
        if let (None, Ok(published)) = (self.first_snapshot, outcome) {
            self.first_snapshot = Some(published.snapshot);
        }
        let pause = if error.is_some() {
            self.failures = self.failures.saturating_add(1);
            let doubled = FIRST_RETRY.saturating_mul(1 << (self.failures - 1).min(16));
            doubled.min(LAST_RETRY).max(interval.min(FIRST_RETRY))
        } else {
            self.failures = 0;
            interval
        };
        if error.is_some() && self.state == MirrorState::Cloning {
            self.state = MirrorState::Failed;
        }
        self.doing = None;
        self.runs += 1;
        self.error = error;
        self.next_run = Instant::now() + pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        let mut status = Status::new(MirrorState::Cloning);
        let mut pauses = Vec::new();

        for _ in 0..30 {
            status.end_run(&Err(RepositoryError::Busy), Duration::from_mins(1));
            pauses.push((status.next_run - Instant::now()).as_secs_f64().round());
        }

        assert_eq!(pauses[..4], [5.0, 10.0, 20.0, 40.0]);
        assert!((pauses[29] - 3600.0).abs() < 1.0);
        assert_eq!(status.state, MirrorState::Failed);
    }
}
