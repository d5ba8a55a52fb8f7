//! [`Checks`]: when upstream of a repository was checked, and with which result.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::RepositoryError;
use super::context::Context;

/// The state of a mirror compared with upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// A recent enough check or update found the mirror equal to upstream.
    Fresh,
    /// Upstream has changed, and the update takes longer than a request can wait: much is fetched,
    /// or the task is publishing.
    Behind,
}

pub(super) type CheckOutcome = Result<Freshness, RepositoryError>;

/// The phase of a running check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckPhase {
    Asking,
    /// A ref differed, and the repository's task was asked for an update.
    Updating,
    Ended,
}

/// The checks of one repository.
#[derive(Debug)]
pub(super) struct Checks {
    pub(super) context: Arc<Context>,
    /// The permits of the upstream host, shared by its repositories.
    pub(super) permits: Arc<Semaphore>,
    pub(super) known: Mutex<CheckState>,
}

#[derive(Debug, Default)]
pub(super) struct CheckState {
    /// When the last check or update began, and its result.
    pub(super) last: Option<(Instant, CheckOutcome)>,
    /// When the last successful check or update began.
    pub(super) last_success: Option<Instant>,
    pub(super) running: Option<RunningCheck>,
    /// When the daemon last heard that upstream has changed. Checks that began earlier don't count.
    pub(super) changed: Option<Instant>,
}

#[derive(Clone, Debug)]
pub(super) struct RunningCheck {
    pub(super) began: Instant,
    pub(super) phase: watch::Receiver<CheckPhase>,
}

impl Checks {
    pub(super) fn new(context: Arc<Context>, permits: Arc<Semaphore>) -> Self {
        Self {
            context,
            permits,
            known: Mutex::default(),
        }
    }

    /// Notes the result of a check or an update that began at `began`.
    pub(super) fn note(&self, began: Instant, outcome: CheckOutcome) {
        let mut known = self.known.lock();
        if outcome.is_ok() {
            known.last_success = known.last_success.max(Some(began));
        }
        // A slow check may end after an update that began later: its result is outdated then.
        if known.last.as_ref().is_none_or(|(last, _)| *last <= began) {
            known.last = Some((began, outcome));
        }
    }
}
