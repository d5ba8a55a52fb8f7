//! [`LfsState`]: whether the LFS archive of a repository is being made, and why not.

use std::sync::Arc;

use cachewfs_format::ObjectId;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio_util::sync::CancellationToken;

use super::failure::LfsFailure;
use crate::base::Backoff;
use crate::config::{Config, LfsMode};
use crate::publish::LfsError;

/// The state of the LFS archive of a repository.
#[derive(Clone, Debug, Default)]
pub(crate) struct LfsState {
    pub(crate) is_running: bool,
    /// The last commit whose work tree was read successfully, and whether it needs LFS objects. If
    /// it does, they are published.
    pub(super) done: Option<(ObjectId, bool)>,
    pub(crate) failure: Option<LfsFailure>,
    /// The number of ended runs that looked at a commit.
    pub(crate) runs: u64,
    /// Whether a client has requested the archive since the daemon's start.
    pub(super) is_wanted: bool,
    /// The mode of the last run, if it succeeded. Until the next publish, no other run is needed.
    pub(super) settled: Option<LfsMode>,
    /// Whether something may have been published since the run began.
    again: bool,
    /// Ends the run.
    pub(super) stop: CancellationToken,
    /// Whether the repository is being forgotten, so that no run may begin.
    pub(super) has_ended: bool,
}

impl LfsState {
    /// Returns whether the work tree is known to need no LFS objects.
    pub(crate) fn needs_none(&self) -> bool {
        matches!(self.done, Some((_, false)))
    }

    /// Notes a reason for a run, which `stop` would end. Returns whether the caller must start it.
    pub(super) fn begin(&mut self, stop: CancellationToken) -> bool {
        let is_paused = self.failure.as_ref().is_some_and(|it| !it.is_due());
        if self.has_ended || is_paused {
            return false;
        }
        if self.is_running {
            self.again = true;
            return false;
        }
        (self.is_running, self.stop) = (true, stop);
        true
    }

    /// Notes the result of a run. Returns whether the run must look at the published snapshot
    /// again.
    pub(super) fn end_run(
        &mut self,
        outcome: Result<Option<LfsLook>, LfsError>,
        config: &Config,
    ) -> bool {
        self.settled = outcome.is_ok().then_some(config.publish.lfs);
        let config = &config.mirrors;
        let has_looked = !matches!(outcome, Ok(None));
        match outcome {
            Ok(None) => {}
            Ok(Some(done)) => (self.done, self.failure) = (Some(done), None),
            // The run was cancelled. It did not fail, so there is no backoff.
            Err(_) if self.stop.is_cancelled() => {}
            Err(error) => {
                let backoff = Backoff {
                    first: config.retry_first,
                    longest: config.retry_max,
                };
                let backoff = |tries| backoff.with_jitter(tries);
                let failure = LfsFailure::after(self.failure.as_ref(), Arc::new(error), backoff);
                self.failure = Some(failure);
            }
        }
        self.runs += u64::from(has_looked);
        let goes_on = self.again && self.failure.is_none() && !self.stop.is_cancelled();
        (self.again, self.is_running) = (false, goes_on);
        goes_on
    }
}

pub(super) type LfsLook = (ObjectId, bool);

/// The state, and the lock of the run in progress.
#[derive(Debug, Default)]
pub(super) struct Lfs {
    pub(super) state: watch::Sender<LfsState>,
    pub(super) turn: Mutex<()>,
}

impl Lfs {
    pub(super) fn state(&self) -> LfsState {
        self.state.borrow().clone()
    }

    /// Ends the run in progress and waits for its end. No run begins until [`Lfs::go_on`].
    pub(super) async fn end(&self) -> MutexGuard<'_, ()> {
        self.state.send_modify(|state| {
            state.has_ended = true;
            state.stop.cancel();
        });
        self.turn.lock().await
    }

    /// Allows runs again.
    pub(super) fn go_on(&self) {
        self.state.send_modify(|state| state.has_ended = false);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn failed() -> Result<Option<LfsLook>, LfsError> {
        Err(LfsError::Fetch {
            url: String::new(),
            source: crate::mirror::LfsFetchError::Batch,
        })
    }

    #[test]
    fn a_publish_during_a_run_makes_the_run_look_again() {
        let (mut state, config) = (LfsState::default(), Config::default());
        let commit = ObjectId::from_bytes(&[1; 20]).unwrap();

        assert!(state.begin(CancellationToken::new()));
        assert!(!state.begin(CancellationToken::new()));

        assert!(state.end_run(Ok(Some((commit, true))), &config));
        assert!(!state.end_run(Ok(Some((commit, false))), &config));
        assert!(!state.is_running && state.needs_none() && state.runs == 2);
    }

    #[test]
    fn a_failure_starts_a_backoff() {
        let (mut state, config) = (LfsState::default(), Config::default());
        assert!(state.begin(CancellationToken::new()));
        assert!(!state.begin(CancellationToken::new()));

        assert!(!state.end_run(failed(), &config));

        assert!(!state.begin(CancellationToken::new()));
        state.failure.as_mut().unwrap().next_try = Instant::now();
        assert!(state.begin(CancellationToken::new()));
        assert!(!state.end_run(failed(), &config));
        assert_eq!(state.failure.as_ref().unwrap().tries, 2);
    }

    #[test]
    fn a_cancelled_run_is_no_failure_and_no_other_begins() {
        let (mut state, config) = (LfsState::default(), Config::default());
        assert!(state.begin(CancellationToken::new()));
        state.has_ended = true;
        state.stop.cancel();

        assert!(!state.end_run(failed(), &config));

        assert!(state.failure.is_none() && state.settled.is_none());
        assert!(!state.begin(CancellationToken::new()));
    }
}
