//! Freshness: checks whether upstream has changed since the mirror was updated. All clients share a
//! check.
//!
//! A check lists upstream's refs and compares them with the mirror's. It asks the repository's task
//! for an update only if a ref differs. An update counts as a check, too. A check is a task of its
//! own, so a client that disconnects doesn't stop it.
//!
//! ```text
//! time ──►   check A begins        request with max_age = 0       check A ends
//!            │                     │ A began too early: wait for its end, then begin check B
//! ```
//!
//! Only the time at which a check *began* counts: a push during the check may not be in its
//! listing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout_at;
use tracing::{Instrument as _, Span};

use super::checks::{CheckOutcome, CheckPhase, Freshness, RunningCheck};
use super::handle::Repository;
use super::{MirrorState, RepositoryError};
use crate::mirror::{is_current, list_upstream};
use crate::traces::{check_span, end_job};

impl Repository {
    /// Makes sure that a check or an update began at most `max_age` ago. If `max_age` is zero, it
    /// must begin after this call. Waits for it at most `ref_check_timeout`.
    ///
    /// An error says why upstream can't be asked. The mirror is unchanged then.
    pub(crate) async fn fresh_within(self: &Arc<Self>, max_age: Duration) -> CheckOutcome {
        let oldest = Instant::now().checked_sub(max_age);
        let oldest = oldest.max(self.checks.known.lock().changed);
        // Waits for at most two checks: the running one may have begun before `oldest`, and the one
        // after it begins late enough.
        loop {
            let mut running = match self.recent_or_running(oldest) {
                Ok(outcome) => return outcome,
                Err(running) => running,
            };
            let deadline = running.began + self.checks.context.config.now().ref_check_timeout;
            let has_ended = |phase: &CheckPhase| *phase == CheckPhase::Ended;
            match timeout_at(deadline.into(), running.phase.wait_for(has_ended)).await {
                Ok(Ok(_)) => continue,
                // The daemon is stopping, and the check was dropped.
                Ok(Err(_)) => return Err(RepositoryError::Stopping),
                Err(_) => {}
            }
            // The check goes on in any case. While it still asks, nothing is known. While it
            // updates, the mirror is known to be behind.
            let phase = *running.phase.borrow();
            match phase {
                CheckPhase::Asking => return Err(RepositoryError::CheckTimedOut),
                CheckPhase::Updating => return Ok(Freshness::Behind),
                CheckPhase::Ended => {}
            }
        }
    }

    /// Starts a check in the background, unless one began within `ref_check_interval`. If upstream
    /// has changed, the update is also published. Returns whether a check is running.
    pub(crate) fn revalidate(self: &Arc<Self>) -> bool {
        let max_age = self.checks.context.config.now().ref_check_interval;
        let oldest = Instant::now().checked_sub(max_age);
        let oldest = oldest.max(self.checks.known.lock().changed);
        self.recent_or_running(oldest).is_err()
    }

    /// Returns how long ago the last successful check or update began, or `None` if there was none
    /// since the daemon started.
    pub(crate) fn lag(&self) -> Option<Duration> {
        let last_success = self.checks.known.lock().last_success;
        last_success.map(|began| began.elapsed())
    }

    /// Notes that upstream has changed. Later calls need a check that begins after this one.
    pub(crate) fn upstream_changed(&self) {
        self.checks.known.lock().changed = Some(Instant::now());
    }

    /// Returns the result of a check that began at `oldest` or later. Else returns the running
    /// check, and starts one if there is none.
    fn recent_or_running(
        self: &Arc<Self>,
        oldest: Option<Instant>,
    ) -> Result<CheckOutcome, RunningCheck> {
        let mut known = self.checks.known.lock();
        if let Some((began, outcome)) = &known.last
            && oldest.is_none_or(|oldest| *began >= oldest)
        {
            return Ok(outcome.clone());
        }
        if let Some(running) = &known.running {
            return Err(running.clone());
        }
        let began = Instant::now();
        let (sender, phase) = watch::channel(CheckPhase::Asking);
        let running = RunningCheck { began, phase };
        known.running = Some(running.clone());
        let repository = Arc::clone(self);
        // Waiters may leave before the check ends, so their span can't be its parent.
        let span = check_span(self.name.as_str());
        self.checks.context.tasks.spawn(async move {
            // `stop` ends the check: an upstream that hangs must not delay the daemon's end.
            let outcome = tokio::select! {
                () = repository.checks.context.stop.cancelled() => Err(RepositoryError::Stopping),
                outcome = repository.check_upstream(&sender).instrument(span.clone()) => outcome,
            };
            end_check(&span, &outcome);
            repository.checks.note(began, outcome);
            repository.checks.known.lock().running = None;
            sender.send_replace(CheckPhase::Ended);
        });
        Err(running)
    }

    async fn check_upstream(self: &Arc<Self>, phase: &watch::Sender<CheckPhase>) -> CheckOutcome {
        let context = &self.checks.context;
        if self.status().state == MirrorState::Ready {
            let permit = Arc::clone(&self.checks.permits).acquire_owned().await;
            let _permit = permit.map_err(|_| RepositoryError::Stopping)?;
            let (git, config) = (context.git.clone(), context.config.now());
            let repository = Arc::clone(self);
            let compare = move || {
                let what = (repository.mirror.as_path(), &config.mirrors.namespaces[..]);
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
        phase.send_replace(CheckPhase::Updating);
        match self.update().await {
            // Upstream answers, but fetching failed or is still in backoff. A client gets newer
            // data from upstream itself, so this is not an error.
            Err(RepositoryError::Mirror(_)) if self.status().state == MirrorState::Ready => {
                Ok(Freshness::Behind)
            }
            updated => updated.map(|()| Freshness::Fresh),
        }
    }
}

fn end_check(span: &Span, outcome: &CheckOutcome) {
    match outcome {
        Ok(Freshness::Fresh) => end_job(span, "fresh", None),
        Ok(Freshness::Behind) => end_job(span, "behind", None),
        Err(error) => end_job(span, "failed", Some(error.failure_kind().as_str())),
    }
}
