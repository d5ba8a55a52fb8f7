//! The LFS archive of each repository. A task of its own makes it, so it doesn't delay the
//! repository's task.
//!
//! A repository has at most one run at a time. A run looks at the snapshot that is published when
//! it begins, and looks again if something was published meanwhile.

use std::sync::Arc;
use std::time::Instant;

use cachewfs_format::ObjectId;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::context::Context;
use super::disk_space::EvictedCopies;
use super::error::lfs_failure;
use super::handle::Repository;
use super::lfs_state::{LfsLook, LfsState};
use super::other_publish::OtherPublish;
use crate::base::chain;
use crate::config::LfsMode;
use crate::metrics::{FailureKind, JobClass, JobEnd, WaitingJob};
use crate::mirror::is_mirror;
use crate::publish::{Attempt, LfsError, PublishError, PublishOutcome};
use crate::store::Store;
use crate::traces::Cause;

/// At most this many LFS archives are made at once. Each uses eight connections.
const MAX_LFS_RUNS: usize = 2;

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

/// The runs that make LFS archives.
#[derive(Debug)]
pub(crate) struct LfsRuns {
    context: Arc<Context>,
    permits: Semaphore,
}

impl LfsRuns {
    pub(crate) fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            context,
            permits: Semaphore::new(MAX_LFS_RUNS),
        })
    }

    /// Requests the LFS archive of `repository`. It is made now and after each publish.
    pub(crate) fn request(self: &Arc<Self>, repository: &Arc<Repository>) {
        repository.lfs.state.send_modify(|state| {
            state.is_wanted = true;
        });
        self.start(repository, Cause::current());
    }

    /// Makes the LFS archive after a publish. An explicit request (`is_explicit`) ends a backoff.
    pub(super) fn after_publish(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        (published, is_explicit): (PublishOutcome, bool),
        cause: Cause,
    ) {
        let is_settled =
            repository.lfs.state().settled == Some(self.context.config.now().publish.lfs);
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
        self.start(repository, cause);
    }

    fn start(self: &Arc<Self>, repository: &Arc<Repository>, cause: Cause) {
        if self.context.config.now().publish.lfs == LfsMode::Off || self.context.stop.is_cancelled()
        {
            return;
        }
        let stop = self.context.stop.child_token();
        let mut begins = false;
        let begin = |state: &mut LfsState| begins = state.begin(stop);
        repository.lfs.state.send_modify(begin);
        if begins {
            let (runs, repository) = (Arc::clone(self), Arc::clone(repository));
            self.context.tasks.spawn(runs.run(repository, cause));
        }
    }

    async fn run(self: Arc<Self>, repository: Arc<Repository>, cause: Cause) {
        // Held until the run has ended: `Lfs::end` waits for this lock.
        let _turn = repository.lfs.turn.lock().await;
        loop {
            let outcome = self.make(&repository, &cause).await;
            let repo = &repository.name;
            let stop = repository.lfs.state().stop;
            if let Err(error) = &outcome
                && !stop.is_cancelled()
            {
                warn!(%repo, error = chain(error), "Making the LFS archive of {repo} failed");
            }
            let config = self.context.config.now();
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
    async fn make(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        cause: &Cause,
    ) -> Result<Option<LfsLook>, LfsError> {
        let stop = repository.lfs.state().stop;
        let Some(commit) = self.commit(repository).await? else {
            return Ok(None);
        };
        let mut evicted = EvictedCopies::default();
        loop {
            let job = WaitingJob::new(Arc::clone(&self.context.metrics), JobClass::Lfs);
            let turn = tokio::select! {
                () = stop.cancelled() => return Ok(None),
                turn = self.permits.acquire() => turn,
            };
            let job = job.start(&repository.name, cause);
            let (publisher, of) = (self.context.publisher.clone(), Arc::clone(repository));
            let (git, span) = (self.context.git.stopped_by(stop.clone()), job.span());
            let publish = move || {
                let from = of.upstream();
                let what = (&*from, of.mirror.as_path());
                publisher.publish_lfs(&git, &of.name, what, commit)
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
                    let other = OtherPublish::of(&self.context, repository, Store::lfs);
                    tokio::select! {
                        () = stop.cancelled() => return Ok(None),
                        () = async { other.await.end().await } => {}
                    }
                }
                // Another daemon took the lease. The next round waits for that daemon.
                Ok(Err(LfsError::Publish(PublishError::LeaseLost))) => {}
                Ok(Err(error)) => {
                    let repo = &repository.name;
                    if !self.context.make_room(repo, &error, &mut evicted).await {
                        return Err(error);
                    }
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Returns the commit whose LFS archive is wanted and doesn't exist.
    async fn commit(&self, repository: &Repository) -> Result<Option<ObjectId>, LfsError> {
        let (state, name) = (repository.lfs.state(), &repository.name);
        let store = self.context.publisher.store();
        let is_wanted = state.is_wanted
            || self.context.config.now().publish.lfs == LfsMode::Always
            || store.lfs().pointer(name).await?.is_some();
        if !is_wanted || state.has_ended || !is_mirror(&repository.mirror) {
            return Ok(None);
        }
        let current = store.pointer(name).await?;
        let commit = current.map(|current| current.snapshot.commit());
        let is_new = |&commit: &ObjectId| {
            !commit.is_null() && state.done.is_none_or(|(done, _)| done != commit)
        };
        Ok(commit.filter(is_new))
    }
}
