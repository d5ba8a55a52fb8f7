//! The LFS archive of each repository: made beside the repository's task, which it must not hold up.
//!
//! At most one run of a repository is under way. It looks at what is published when it begins, and
//! again if something was published meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cachewfs_format::ObjectId;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::backoff::pause;
use super::error::lfs_failure;
use super::followed::Repository;
use super::other_publish::OtherPublish;
use super::registry::Registry;
use super::room::Given;
use super::status::since_epoch;
use crate::clock::seconds_since_epoch;
use crate::config::{Config, LfsMode};
use crate::error_chain::chain;
use crate::metrics::{FailureKind, JobClass, JobEnd, WaitingJob};
use crate::mirror::is_mirror;
use crate::publish::{Attempt, LfsError, PublishError, PublishOutcome};
use crate::store::Store;
use crate::traces::Cause;

/// At most this many LFS archives are made at once: each with eight connections.
pub(super) const MAX_LFS_RUNS: usize = 2;

/// Why the LFS archive could not be made.
#[derive(Clone, Debug)]
pub(crate) struct LfsFailure {
    pub(crate) error: Arc<LfsError>,
    /// Since when it fails, in seconds since the epoch.
    pub(crate) since: u64,
    /// How many runs failed since the last that did not.
    pub(crate) tries: u32,
    next_try: Instant,
}

impl LfsFailure {
    pub(crate) fn is_due(&self) -> bool {
        self.next_try <= Instant::now()
    }

    /// How long until the next run may begin.
    pub(crate) fn next_try_in(&self) -> Duration {
        self.next_try.saturating_duration_since(Instant::now())
    }

    /// When the next run may begin, in seconds since the epoch.
    pub(crate) fn next_try_at(&self) -> u64 {
        since_epoch(self.next_try)
    }
}

/// What is known of the LFS archive of a repository.
#[derive(Clone, Debug, Default)]
pub(crate) struct LfsState {
    pub(crate) is_running: bool,
    /// The commit whose tree was looked at last, with success; and whether it needs LFS objects, which
    /// are published then.
    done: Option<(ObjectId, bool)>,
    pub(crate) failure: Option<LfsFailure>,
    /// How many runs have ended that looked at a commit.
    pub(crate) runs: u64,
    /// Somebody has asked for it since the daemon's start.
    is_wanted: bool,
    /// A run has ended well, in this mode: until something is published there is no need of another.
    settled: Option<LfsMode>,
    /// Something may have been published since the run began.
    again: bool,
    /// Ends the run.
    stop: CancellationToken,
    /// The repository is forgotten: there are no more runs.
    has_ended: bool,
}

impl LfsState {
    /// Whether the work tree is known to need no LFS objects.
    pub(crate) fn needs_none(&self) -> bool {
        matches!(self.done, Some((_, false)))
    }

    /// Notes a reason for a run; tells whether one is to begin now, which `stop` ends.
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

    /// Notes how a run ended; tells whether there is to be another.
    fn end_run(&mut self, outcome: Result<Option<Done>, LfsError>, config: &Config) -> bool {
        self.settled = outcome.is_ok().then_some(config.lfs);
        let config = &config.mirrors;
        let has_looked = !matches!(outcome, Ok(None));
        match outcome {
            Ok(None) => {}
            Ok(Some(done)) => (self.done, self.failure) = (Some(done), None),
            Err(_) if self.stop.is_cancelled() => {}
            Err(error) => {
                let before = self.failure.take();
                let tries = before.as_ref().map_or(0, |before| before.tries);
                let tries = tries.saturating_add(1);
                let pause = pause(tries, config.retry_first, config.retry_max);
                self.failure = Some(LfsFailure {
                    error: Arc::new(error),
                    since: before.map_or_else(seconds_since_epoch, |before| before.since),
                    tries,
                    next_try: Instant::now() + pause,
                });
            }
        }
        self.runs += u64::from(has_looked);
        let goes_on = self.again && self.failure.is_none() && !self.stop.is_cancelled();
        (self.again, self.is_running) = (false, goes_on);
        goes_on
    }
}

type Done = (ObjectId, bool);

/// The state, and the turn of the one run that may be under way.
#[derive(Debug, Default)]
pub(super) struct Lfs {
    state: watch::Sender<LfsState>,
    turn: Mutex<()>,
}

impl Lfs {
    fn state(&self) -> LfsState {
        self.state.borrow().clone()
    }

    /// Ends the run that is under way, and waits for that; there are no more until [`Lfs::go_on`].
    pub(super) async fn end(&self) -> MutexGuard<'_, ()> {
        self.state.send_modify(|state| {
            state.has_ended = true;
            state.stop.cancel();
        });
        self.turn.lock().await
    }

    /// There may be runs again.
    pub(super) fn go_on(&self) {
        self.state.send_modify(|state| state.has_ended = false);
    }
}

impl Repository {
    /// What is known of its LFS archive.
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
    /// Has the LFS archive of `repository` made, now and after each publish, because somebody asks for it.
    pub(crate) fn want_lfs(self: &Arc<Self>, repository: &Arc<Repository>) {
        repository.lfs.state.send_modify(|state| {
            state.is_wanted = true;
        });
        self.bring_lfs(repository, Cause::current());
    }

    /// Has the LFS archive follow a publish. Somebody's wish ends a pause.
    pub(super) fn lfs_after_publish(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        (published, is_wish): (PublishOutcome, bool),
        cause: Cause,
    ) {
        let is_settled = repository.lfs.state().settled == Some(self.config.now().lfs);
        if is_settled && !published.moved && !is_wish {
            return;
        }
        if is_wish {
            repository.lfs.state.send_modify(|state| {
                if let Some(failure) = &mut state.failure {
                    (failure.tries, failure.next_try) = (0, Instant::now());
                }
            });
        }
        self.bring_lfs(repository, cause);
    }

    fn bring_lfs(self: &Arc<Self>, repository: &Arc<Repository>, cause: Cause) {
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

    /// Makes the archive of what is published; gives `None` if there is nothing to look at.
    async fn make_lfs(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        cause: &Cause,
    ) -> Result<Option<Done>, LfsError> {
        let stop = repository.lfs.state().stop;
        let (registry, of) = (Arc::clone(self), Arc::clone(repository));
        let look = tokio::task::spawn_blocking(move || registry.lfs_commit(&of));
        let Ok(commit) = look.await else {
            return Ok(None);
        };
        let Some(commit) = commit? else {
            return Ok(None);
        };
        let mut given = Given::default();
        loop {
            let job = WaitingJob::new(self.metrics(), JobClass::Lfs);
            let turn = tokio::select! {
                () = stop.cancelled() => return Ok(None),
                turn = self.lfs_turns.acquire() => turn,
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
                    drop(turn);
                    let repo = &repository.name;
                    info!(%repo, %holder, "Waiting for {holder}, which fetches the LFS objects of {repo}");
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
                // Whoever has it now is waited for.
                Ok(Err(LfsError::Publish(PublishError::LeaseLost))) => {}
                Ok(Err(error)) => {
                    if !self.make_room(&repository.name, &error, &mut given).await {
                        return Err(error);
                    }
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// The commit whose LFS archive is wanted and not made; blocks.
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

    fn failed() -> Result<Option<Done>, LfsError> {
        Err(LfsError::Fetch {
            url: String::new(),
            source: crate::mirror::LfsFetchError::Batch,
        })
    }

    #[test]
    fn what_is_published_during_a_run_is_looked_at_after_it() {
        let (mut state, config) = (LfsState::default(), Config::default());
        let commit = ObjectId::from_bytes(&[1; 20]).unwrap();

        assert!(state.begin(CancellationToken::new()));
        assert!(!state.begin(CancellationToken::new()));

        assert!(state.end_run(Ok(Some((commit, true))), &config));
        assert!(!state.end_run(Ok(Some((commit, false))), &config));
        assert!(!state.is_running && state.needs_none() && state.runs == 2);
    }

    #[test]
    fn a_failure_makes_a_pause() {
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
    fn a_run_that_is_ended_is_no_failure_and_the_last() {
        let (mut state, config) = (LfsState::default(), Config::default());
        assert!(state.begin(CancellationToken::new()));
        state.has_ended = true;
        state.stop.cancel();

        assert!(!state.end_run(failed(), &config));

        assert!(state.failure.is_none() && state.settled.is_none());
        assert!(!state.begin(CancellationToken::new()));
    }
}
