//! How old what a mirror shows may be: checks whether upstream has moved, shared by all who ask.
//!
//! A check lists upstream's refs and compares them with the mirror's; an update follows only when something moved. An update of the
//! repository's task counts as a check too. No check hangs off the life of a request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

use super::{MirrorState, Repository, RepositoryError};
use crate::config::LiveConfig;
use crate::mirror::{Git, is_current, list_upstream};
use crate::traces::{check_span, end_job};

/// What a mirror is, compared with upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// It is as upstream was at a check that is recent enough.
    Fresh,
    /// Upstream has moved on, and the mirror needs longer to follow than a request can wait: much is
    /// fetched, or a publish reads the mirror.
    Behind,
}

type Outcome = Result<Freshness, RepositoryError>;

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Asking,
    /// Something moved, and the repository's task was asked for an update.
    Updating,
    Ended,
}

/// What checks need beside the repository.
#[derive(Debug)]
pub(super) struct Checker {
    pub(super) config: Arc<LiveConfig>,
    pub(super) git: Git,
    /// Those of the upstream host.
    pub(super) permits: Arc<Semaphore>,
    pub(super) tasks: TaskTracker,
    /// Cancelled when the daemon stops.
    pub(super) stop: CancellationToken,
}

/// The checks of one repository.
#[derive(Debug)]
pub(super) struct Checks {
    checker: Checker,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// When the last check began, and what it found.
    last: Option<(Instant, Outcome)>,
    /// When the last that succeeded began.
    last_success: Option<Instant>,
    running: Option<Running>,
    /// Since when upstream is known to have moved: what began earlier says nothing any more.
    moved: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Running {
    began: Instant,
    phase: watch::Receiver<Phase>,
}

impl Checks {
    pub(super) fn new(checker: Checker) -> Self {
        Self {
            checker,
            known: Mutex::default(),
        }
    }

    /// Notes what a check, or an update, found that began at `began`.
    pub(super) fn note(&self, began: Instant, outcome: Outcome) {
        let mut known = self.lock();
        if outcome.is_ok() {
            known.last_success = known.last_success.max(Some(began));
        }
        if known.last.as_ref().is_none_or(|(last, _)| *last <= began) {
            known.last = Some((began, outcome));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Repository {
    /// Makes sure that a check of upstream, or an update, began no longer ago than `max_age`; zero
    /// asks for one that begins after this call. Waits for it up to `ref_check_timeout`.
    ///
    /// An error says why upstream can't be asked; the mirror, if it is ready, is as it was then.
    pub(crate) async fn fresh_within(self: &Arc<Self>, max_age: Duration) -> Outcome {
        let oldest = Instant::now().checked_sub(max_age);
        let oldest = oldest.max(self.checks.lock().moved);
        loop {
            let mut running = match self.recent_or_running(oldest) {
                Ok(outcome) => return outcome,
                Err(running) => running,
            };
            let deadline = running.began + self.checks.checker.config.now().ref_check_timeout;
            let has_ended = |phase: &Phase| *phase == Phase::Ended;
            match timeout_at(deadline.into(), running.phase.wait_for(has_ended)).await {
                Ok(Ok(_)) => continue,
                // The daemon stops, and the check went away.
                Ok(Err(_)) => return Err(RepositoryError::Stopping),
                Err(_) => {}
            }
            let phase = *running.phase.borrow();
            match phase {
                Phase::Asking => return Err(RepositoryError::CheckTimedOut),
                Phase::Updating => return Ok(Freshness::Behind),
                Phase::Ended => {}
            }
        }
    }

    /// Begins a check of upstream behind the caller's back, unless one began within
    /// `ref_check_interval`. What moved is published. Tells whether a check is under way.
    pub(crate) fn revalidate(self: &Arc<Self>) -> bool {
        let max_age = self.checks.checker.config.now().ref_check_interval;
        let oldest = Instant::now().checked_sub(max_age);
        let oldest = oldest.max(self.checks.lock().moved);
        self.recent_or_running(oldest).is_err()
    }

    /// How long ago upstream was last asked with success, an update or a check; `None` if it was not
    /// since the daemon started.
    pub(crate) fn lag(&self) -> Option<Duration> {
        let last_success = self.checks.lock().last_success;
        last_success.map(|began| began.elapsed())
    }

    /// Notes that upstream has moved: the next question is not answered by an earlier check.
    pub(crate) fn upstream_moved(&self) {
        self.checks.lock().moved = Some(Instant::now());
    }

    /// What a check found that began at `oldest` or later; else the running one, begun if need be.
    fn recent_or_running(self: &Arc<Self>, oldest: Option<Instant>) -> Result<Outcome, Running> {
        let mut known = self.checks.lock();
        if let Some((began, outcome)) = &known.last
            && oldest.is_none_or(|oldest| *began >= oldest)
        {
            return Ok(outcome.clone());
        }
        if let Some(running) = &known.running {
            return Err(running.clone());
        }
        let began = Instant::now();
        let (sender, phase) = watch::channel(Phase::Asking);
        let running = Running { began, phase };
        known.running = Some(running.clone());
        let repository = Arc::clone(self);
        // Whoever asks doesn't wait for the end of it, and neither does their span.
        let span = check_span(self.name.as_str());
        self.checks.checker.tasks.spawn(async move {
            // An upstream that hangs doesn't hold up the daemon's end.
            let outcome = tokio::select! {
                () = repository.checks.checker.stop.cancelled() => Err(RepositoryError::Stopping),
                outcome = repository.check_upstream(&sender).instrument(span.clone()) => outcome,
            };
            end_check(&span, &outcome);
            repository.checks.note(began, outcome);
            repository.checks.lock().running = None;
            sender.send_replace(Phase::Ended);
        });
        Err(running)
    }

    async fn check_upstream(self: &Arc<Self>, phase: &watch::Sender<Phase>) -> Outcome {
        let checker = &self.checks.checker;
        if self.status().state == MirrorState::Ready {
            let permit = Arc::clone(&checker.permits).acquire_owned().await;
            let _permit = permit.map_err(|_| RepositoryError::Stopping)?;
            let (git, config) = (checker.git.clone(), checker.config.now());
            let repository = Arc::clone(self);
            let compare = move || {
                let what = (repository.mirror.as_path(), &config.namespaces[..]);
                let listing = list_upstream(&git, &repository.upstream(), what, &config.git)?;
                is_current(&git, what, &listing)
            };
            let span = Span::current();
            let compare = tokio::task::spawn_blocking(move || span.in_scope(compare));
            let compared = compare.await;
            let compared = compared.map_err(|_| RepositoryError::Stopping)?;
            if compared.map_err(|error| RepositoryError::Mirror(Arc::new(error)))? {
                return Ok(Freshness::Fresh);
            }
        }
        phase.send_replace(Phase::Updating);
        match self.update().await {
            // Upstream answers, but what is new can't be fetched, or not yet again: who asks had
            // better ask there.
            Err(RepositoryError::Mirror(_)) if self.status().state == MirrorState::Ready => {
                Ok(Freshness::Behind)
            }
            updated => updated.map(|()| Freshness::Fresh),
        }
    }
}

fn end_check(span: &Span, outcome: &Outcome) {
    match outcome {
        Ok(Freshness::Fresh) => end_job(span, "fresh", None),
        Ok(Freshness::Behind) => end_job(span, "behind", None),
        Err(error) => end_job(span, "failed", Some(error.failure_kind().as_str())),
    }
}
