//! The jobs of a repository's task, which run on blocking threads: clone, update, publish,
//! maintain.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tracing::{Instrument as _, Span, info, warn};

use super::context::Context;
use super::damage::set_aside;
use super::disk_space::EvictedCopies;
use super::handle::Repository;
use super::worker::Worker;
use super::{MirrorState, RepositoryError, Status};
use crate::base::chain;
use crate::metrics::{FailureKind, JobClass, JobEnd};
use crate::mirror::{
    GitError, Maintenance, MirrorError, clone_mirror, head_commit, is_disk_full, is_empty_mirror,
    is_mirror, maintain, needed_maintenance, remove_stale_locks, update,
};
use crate::publish::{Attempt, PublishOptions, PublishOutcome};
use crate::restore::{Restore, RestoreError};
use crate::store::wait;
use crate::traces::{Cause, step_span};

impl Worker {
    /// Updates the mirror, or clones it if there is none.
    pub(super) async fn update(&mut self) -> Result<(), RepositoryError> {
        let mut evicted = EvictedCopies::default();
        loop {
            let updated = self.update_once().await;
            if !self.has_freed_space(&updated, &mut evicted).await {
                return updated;
            }
        }
    }

    async fn update_once(&mut self) -> Result<(), RepositoryError> {
        let (context, repository) = (Arc::clone(&self.context), Arc::clone(&self.repository));
        // `true` until the job ends well: if it fails or panics, a killed git may have left locks.
        let sweep = std::mem::replace(&mut self.may_have_locks, true);
        let result = in_span(move || {
            let (config, mirror) = (context.config.now(), &repository.mirror);
            let mut is_current = false;
            let mut limits = config.git.clone();
            if !is_mirror(mirror) {
                is_current = create_or_restore_mirror(&context, &repository)?;
                limits = limits.for_first_update();
            } else if sweep {
                sweep_mirror(mirror)?;
            }
            if !is_current {
                let what = (mirror.as_path(), &config.mirrors.namespaces[..]);
                let upstream = repository.upstream();
                match update(&context.git, &upstream, what, &limits) {
                    // git gave the clone of an empty upstream its own object format. If upstream
                    // uses the other format by now, the fetch fails: clone again, nothing is lost.
                    Err(MirrorError::Upstream { is_answering, .. })
                        if is_answering && is_empty_mirror(mirror) =>
                    {
                        if !create_or_restore_mirror(&context, &repository)? {
                            update(&context.git, &upstream, what, &limits)?;
                        }
                    }
                    updated => updated?,
                }
            }
            let head = head_commit(&context.git, mirror)?;
            repository.change_status(|status| status.mirror_is_fresh(head));
            Ok(())
        });
        let result = result.await.map_err(|_| RepositoryError::Stopping)?;
        self.may_have_locks = result.is_err();
        result.map_err(|error| RepositoryError::Mirror(Arc::new(error)))
    }

    /// Publishes the mirror.
    pub(super) async fn publish(
        &mut self,
        order: PublishOptions,
    ) -> Result<Attempt<PublishOutcome>, RepositoryError> {
        let mut evicted = EvictedCopies::default();
        loop {
            let published = self.publish_once(order).await;
            if !self.has_freed_space(&published, &mut evicted).await {
                return published;
            }
        }
    }

    /// Returns whether the job failed because the disk was full, and there is free space now.
    async fn has_freed_space<T>(
        &self,
        ended: &Result<T, RepositoryError>,
        evicted: &mut EvictedCopies,
    ) -> bool {
        let Err(error) = ended else { return false };
        let repo = &self.repository.name;
        self.context.make_room(repo, error, evicted).await
    }

    async fn publish_once(
        &mut self,
        order: PublishOptions,
    ) -> Result<Attempt<PublishOutcome>, RepositoryError> {
        let (context, repository) = (Arc::clone(&self.context), Arc::clone(&self.repository));
        let sweep = self.may_have_locks;
        let result = in_span(move || {
            let Repository {
                name, mirror, feed, ..
            } = &*repository;
            if sweep {
                // A publish that failed on a full disk left temporary files, which use space.
                sweep_mirror(mirror).map_err(|error| RepositoryError::Mirror(Arc::new(error)))?;
            }
            context
                .publisher
                .publish(name, (&repository.upstream(), mirror), (order, feed))
                .map_err(|error| RepositoryError::Publish(Arc::new(error)))
        });
        let outcome = result.await.map_err(|_| RepositoryError::Stopping)?;
        self.may_have_locks |= outcome.is_err();
        outcome
    }

    /// Repacks and indexes the mirror if needed. A failure is logged, and doesn't fail the run.
    pub(super) async fn maintain(&mut self) {
        let (context, repository) = (Arc::clone(&self.context), Arc::clone(&self.repository));
        let last = self.repacked_at.map(|at| at.elapsed());
        let due = needed_maintenance(&repository.mirror, &context.config.now().mirrors, last);
        let due = match due {
            Ok(Some(due)) => due,
            Ok(None) => return,
            Err(error) => return self.note_maintenance_failure(&error),
        };
        // Maintenance takes as much memory and as many processors as a publish, so it needs the
        // same turn.
        let job = self.wait(JobClass::Maintain);
        let Ok(_turn) = self.unless_stopping(self.publish_turn(&[])).await else {
            return;
        };
        let job = self.start(job, &Cause::default());
        let work = move || {
            let git = context.git.stopped_by(context.stop.clone());
            maintain(&git, &repository.mirror, due, &context.config.now().git)
        };
        let done = in_span(work).instrument(job.span()).await;
        job.end(match &done {
            Ok(Ok(())) => JobEnd::Done,
            Ok(Err(_)) if self.context.stop.is_cancelled() => JobEnd::Failed(FailureKind::Stopping),
            Ok(Err(MirrorError::Io { .. })) => JobEnd::Failed(FailureKind::Io),
            Ok(Err(_)) => JobEnd::Failed(FailureKind::Git),
            Err(_) => JobEnd::Failed(FailureKind::Other),
        });
        self.repository.change_status(Status::end);
        if due == Maintenance::RollUp {
            self.repacked_at = Some(Instant::now());
        }
        if let Ok(Err(error)) = done {
            self.may_have_locks = true;
            self.note_maintenance_failure(&error);
        }
    }

    fn note_maintenance_failure(&self, error: &MirrorError) {
        if !self.context.stop.is_cancelled() {
            let repo = &self.repository.name;
            warn!(%repo, error = chain(error), "Maintaining the mirror of {repo} failed");
        }
    }
}

/// Runs `work` on a thread that may block, within the current span.
async fn in_span<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await
}

fn sweep_mirror(mirror: &Path) -> Result<(), MirrorError> {
    remove_stale_locks(mirror).map_err(|source| MirrorError::Io {
        path: mirror.to_owned(),
        source,
    })
}

/// Creates the mirror: restores it from its snapshot in the store, or clones it if that fails.
/// Returns whether it is as up to date as after an update.
fn create_or_restore_mirror(
    context: &Context,
    repository: &Repository,
) -> Result<bool, MirrorError> {
    let (config, upstream) = (context.config.now(), repository.upstream());
    let name = &repository.name;
    let mirror = &repository.mirror;
    if mirror.exists() {
        if !is_mirror(mirror) {
            warn!(repo = %name, "Removing the incomplete mirror of {name}");
        }
        set_aside(context, repository).map_err(|source| MirrorError::Io {
            path: mirror.clone(),
            source,
        })?;
    }
    // An incomplete mirror is useless, so git is killed as soon as the daemon begins to stop.
    let git = context.git.stopped_by(context.stop.clone());
    let store = context.publisher.store();
    let is_published = matches!(wait(store.pointer(name)), Ok(Some(_)));
    repository.change_status(|status| {
        status.state = if is_published {
            MirrorState::Restoring
        } else {
            MirrorState::Cloning
        };
    });
    let restore = Restore {
        git: &git,
        config: &config,
        store,
        repo: name,
        upstream: &upstream,
    };
    let span = if is_published {
        step_span("restore")
    } else {
        Span::none()
    };
    // Restoring comes first: only the store has the commits that upstream dropped but that are
    // retained.
    match span.in_scope(|| restore.run(mirror)) {
        Ok(true) => {
            info!(repo = %name, "Restored the mirror of {name} from its snapshot");
            return Ok(true);
        }
        Ok(false) => {}
        Err(_) if git.is_stopping() => {
            let command = "fetch".to_owned();
            return Err(GitError::Stopped { command }.into());
        }
        // A clone would need less space, but it would lose the commits that only the store has.
        Err(error) if is_disk_full(&error) => {
            return Err(MirrorError::Io {
                path: mirror.clone(),
                source: std::io::Error::new(std::io::ErrorKind::StorageFull, error),
            });
        }
        Err(error) => match error.into_upstream() {
            Ok(error) => return Err(error),
            Err(error) => {
                let text = chain(&error);
                warn!(
                    repo = %name,
                    error = text,
                    "Can't restore the mirror of {name} from its snapshot; cloning it instead"
                );
                if let RestoreError::Store(error) = &error {
                    // Otherwise the next publish would reuse the damaged segments.
                    wait(store.set_damaged_aside(error)).map_err(|source| MirrorError::Io {
                        path: mirror.clone(),
                        source: std::io::Error::other(source),
                    })?;
                }
            }
        },
    }
    repository.change_status(|status| status.state = MirrorState::Cloning);
    let tmp = config.data_dir.tmp();
    let limit = config.git.clone_timeout;
    clone_mirror(&git, &upstream, (&tmp, mirror), limit)?;
    info!(repo = %name, "Cloned {name}");
    Ok(false)
}
