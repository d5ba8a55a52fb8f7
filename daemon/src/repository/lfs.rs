//! The LFS archive of each repository. A task of its own makes it, so it doesn't delay the
//! repository's task.
//!
//! A repository has at most one run at a time. A run looks at the snapshot that is published when
//! it begins, and looks again if something was published meanwhile.

use std::sync::Arc;
use std::time::Instant;

use cachewfs_format::ObjectId;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::disk_space::EvictedCopies;
use super::error::lfs_failure;
use super::handle::Repository;
use super::other_publish::OtherPublish;
use super::registry::Registry;
use super::status::since_epoch;
use crate::base::{Backoff, chain, seconds_since_epoch};
use crate::config::{Config, LfsMode};
use crate::metrics::{FailureKind, JobClass, JobEnd, WaitingJob};
use crate::mirror::is_mirror;
use crate::publish::{Attempt, LfsError, PublishError, PublishOutcome};
use crate::store::Store;
use crate::traces::Cause;

/// At most this many LFS archives are made at once. Each uses eight connections.
pub(super) const MAX_LFS_RUNS: usize = 2;

/// Why the LFS archive could not be made.
#[derive(Clone, Debug)]
pub(crate) struct LfsFailure {
    pub(crate) error: Arc<LfsError>,
    /// When the runs began to fail, in seconds since the epoch.
    pub(crate) since: u64,
    /// The number of failed runs since the last success.
    pub(crate) tries: u32,
    next_try: Instant,
}

impl LfsFailure {
    pub(crate) fn is_due(&self) -> bool {
        self.next_try <= Instant::now()
    }

    /// Returns when the next run may begin, in seconds since the epoch.
    pub(crate) fn next_try_at(&self) -> u64 {
        since_epoch(self.next_try)
    }
}

/// The state of the LFS archive of a repository.
#[derive(Clone, Debug, Default)]
pub(crate) struct LfsState {
    pub(crate) is_running: bool,
    /// The last commit whose work tree was read successfully, and whether it needs LFS objects. If
    /// it does, they are published.
    done: Option<(ObjectId, bool)>,
    pub(crate) failure: Option<LfsFailure>,
    /// The number of ended runs that looked at a commit.
    pub(crate) runs: u64,
    /// Whether a client has requested the archive since the daemon's start.
    is_wanted: bool,
    /// The mode of the last run, if it succeeded. Until the next publish, no other run is needed.
    settled: Option<LfsMode>,
    /// Whether something may have been published since the run began.
    again: bool,
    /// Ends the run.
    stop: CancellationToken,
    /// Whether the repository is being forgotten, so that no run may begin.
    has_ended: bool,
}

impl LfsState {
    /// Returns whether the work tree is known to need no LFS objects.
    pub(crate) fn needs_none(&self) -> bool {
        matches!(self.done, Some((_, false)))
    }

    /// Notes a reason for a run, which `stop` would end. Returns whether the caller must start it.
    fn begin(&mut self, stop: CancellationToken) -> bool {
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
    fn end_run(&mut self, outcome: Result<Option<LfsLook>, LfsError>, config: &Config) -> bool {
        self.settled = outcome.is_ok().then_some(config.lfs);
        let config = &config.mirrors;
        let has_looked = !matches!(outcome, Ok(None));
        match outcome {
            Ok(None) => {}
            Ok(Some(done)) => (self.done, self.failure) = (Some(done), None),
            // The run was cancelled. It did not fail, so there is no backoff.
            Err(_) if self.stop.is_cancelled() => {}
            Err(error) => {
                let before = self.failure.take();
                let tries = before.as_ref().map_or(0, |before| before.tries);
                let tries = tries.saturating_add(1);
                let backoff = Backoff {
                    first: config.retry_first,
                    longest: config.retry_max,
                };
                let delay = backoff.with_jitter(tries);
                self.failure = Some(LfsFailure {
                    error: Arc::new(error),
                    since: before.map_or_else(seconds_since_epoch, |before| before.since),
                    tries,
                    next_try: Instant::now() + delay,
                });
            }
        }
        self.runs += u64::from(has_looked);
        let goes_on = self.again && self.failure.is_none() && !self.stop.is_cancelled();
        (self.again, self.is_running) = (false, goes_on);
        goes_on
    }
}

type LfsLook = (ObjectId, bool);

/// The state, and the lock of the run in progress.
#[derive(Debug, Default)]
pub(super) struct Lfs {
    state: watch::Sender<LfsState>,
    turn: Mutex<()>,
}

impl Lfs {
    fn state(&self) -> LfsState {
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

impl Repository {
    /// Returns the state of the LFS archive.
    pub(crate) fn lfs(&self) -> LfsState {
        self.lfs.state()
    }

    /// Waits until more than `runs` runs have ended.
    pub(crate) async fn lfs_after(&self, runs: u64) {
        let mut states = self.lfs.state.subscribe();
        // The sender is a field of this repository, so it is not dropped.
        drop(states.wait_for(|state| state.runs > runs).await);
    }
}

impl Registry {
    /// Requests the LFS archive of `repository`. It is made now and after each publish.
    pub(crate) fn request_lfs(self: &Arc<Self>, repository: &Arc<Repository>) {
        repository.lfs.state.send_modify(|state| {
            state.is_wanted = true;
        });
        self.start_lfs(repository, Cause::current());
    }

    /// Makes the LFS archive after a publish. An explicit request (`is_explicit`) ends a backoff.
    pub(super) fn lfs_after_publish(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        (published, is_explicit): (PublishOutcome, bool),
        cause: Cause,
    ) {
        let is_settled = repository.lfs.state().settled == Some(self.config.now().lfs);
        if is_settled && !published.moved && !is_explicit {
            return;
        }
        if is_explicit {
            repository.lfs.state.send_modify(|state| {
                if let Some(failure) = &mut state.failure {
                    (failure.tries, failure.next_try) = (0, Instant::now());
                }
            });
        }
        self.start_lfs(repository, cause);
    }

    fn start_lfs(self: &Arc<Self>, repository: &Arc<Repository>, cause: Cause) {
        if self.config.now().lfs == LfsMode::Off || self.stop.is_cancelled() {
            return;
        }
        let stop = self.stop.child_token();
        let mut begins = false;
        let begin = |state: &mut LfsState| begins = state.begin(stop);
        repository.lfs.state.send_modify(begin);
        if begins {
            let (registry, repository) = (Arc::clone(self), Arc::clone(repository));
            self.tasks.spawn(registry.run_lfs(repository, cause));
        }
    }

    async fn run_lfs(self: Arc<Self>, repository: Arc<Repository>, cause: Cause) {
        // Held until the run has ended: `Lfs::end` waits for this lock.
        let _turn = repository.lfs.turn.lock().await;
        loop {
            let outcome = self.make_lfs(&repository, &cause).await;
            let repo = &repository.name;
            let stop = repository.lfs.state().stop;
            if let Err(error) = &outcome
                && !stop.is_cancelled()
            {
                warn!(%repo, error = chain(error), "Making the LFS archive of {repo} failed");
            }
            let config = self.config.now();
            let mut goes_on = false;
            let end = |state: &mut LfsState| goes_on = state.end_run(outcome, &config);
            repository.lfs.state.send_modify(end);
            if !goes_on {
                return;
            }
        }
    }

    /// Makes the archive of the published snapshot. Returns `None` if no commit needs an archive,
    /// or if the run has to stop.
    async fn make_lfs(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        cause: &Cause,
    ) -> Result<Option<LfsLook>, LfsError> {
        let stop = repository.lfs.state().stop;
        let (registry, of) = (Arc::clone(self), Arc::clone(repository));
        let look = tokio::task::spawn_blocking(move || registry.lfs_commit(&of));
        let Ok(commit) = look.await else {
            return Ok(None);
        };
        let Some(commit) = commit? else {
            return Ok(None);
        };
        let mut evicted = EvictedCopies::default();
        loop {
            let job = WaitingJob::new(self.metrics(), JobClass::Lfs);
            let turn = tokio::select! {
                () = stop.cancelled() => return Ok(None),
                turn = self.lfs_permits.acquire() => turn,
            };
            let job = job.start(&repository.name, cause);
            let (registry, of) = (Arc::clone(self), Arc::clone(repository));
            let (git, span) = (self.git.stopped_by(stop.clone()), job.span());
            let publish = move || {
                let from = of.upstream();
                let what = (&*from, of.mirror.as_path());
                registry.publisher.publish_lfs(&git, &of.name, what, commit)
            };
            let published = tokio::task::spawn_blocking(move || span.in_scope(publish)).await;
            job.end(match &published {
                Ok(Ok(Attempt::Done(true))) => JobEnd::Done,
                Ok(Ok(_)) => JobEnd::Unchanged,
                _ if stop.is_cancelled() => JobEnd::Failed(FailureKind::Stopping),
                Ok(Err(error)) => JobEnd::Failed(lfs_failure(error)),
                Err(_) => JobEnd::Failed(FailureKind::Other),
            });
            match published {
                Ok(Ok(Attempt::Done(needs_some))) => return Ok(Some((commit, needs_some))),
                Ok(Ok(Attempt::HeldBy(holder))) => {
                    // The other daemon may need minutes, so this one's permit goes to another
                    // repository.
                    drop(turn);
                    let repo = &repository.name;
                    info!(
                        %repo,
                        %holder,
                        "Waiting for the daemon {holder}, which fetches the LFS objects of {repo}"
                    );
                    let ended = async {
                        OtherPublish::of(self, repository, Store::lfs)
                            .await?
                            .end()
                            .await
                    };
                    tokio::select! {
                        () = stop.cancelled() => return Ok(None),
                        ended = ended => if ended.is_err() {
                            return Ok(None);
                        },
                    }
                }
                // Another daemon took the lease. The next round waits for that daemon.
                Ok(Err(LfsError::Publish(PublishError::LeaseLost))) => {}
                Ok(Err(error)) => {
                    if !self.make_room(&repository.name, &error, &mut evicted).await {
                        return Err(error);
                    }
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Returns the commit whose LFS archive is wanted and doesn't exist. Blocks the thread.
    fn lfs_commit(&self, repository: &Repository) -> Result<Option<ObjectId>, LfsError> {
        let (state, name) = (repository.lfs.state(), &repository.name);
        let store = self.publisher.store();
        let is_wanted = state.is_wanted
            || self.config.now().lfs == LfsMode::Always
            || store.lfs().pointer(name)?.is_some();
        if !is_wanted || state.has_ended || !is_mirror(&repository.mirror) {
            return Ok(None);
        }
        let commit = store
            .pointer(name)?
            .map(|current| current.snapshot.commit());
        let is_new = |&commit: &ObjectId| {
            !commit.is_null() && state.done.is_none_or(|(done, _)| done != commit)
        };
        Ok(commit.filter(is_new))
    }
}

#[cfg(test)]
mod tests {
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
