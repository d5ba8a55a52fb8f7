//! Removes mirrors that were unused for long, and repositories that an operator wants forgotten.
//!
//! The snapshots stay in the store unless the operator says otherwise. If the repository is
//! requested again, the mirror is restored from there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tracing::{info, warn};

use super::RepositoryError;
use super::context::Context;
use super::handle::Repository;
use super::last_use::write_used_at;
use super::repositories::Repositories;
use super::request::{Snapshots, TaskRequest};
use super::worker::Worker;
use crate::base::{chain, seconds_since_epoch};
use crate::mirror::{MirrorError, is_mirror};
use crate::store::wait;

/// At most this often the file is written, however many requests come.
const USE_PERIOD: Duration = Duration::from_hours(1);

/// When a removal may go ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RemovalCondition {
    Always,
    /// Only if the mirror is still unused when it is moved away.
    Unused,
}

impl Worker {
    /// Writes the time of the last use, if it is more than `period` later than the written one.
    pub(super) fn write_use(&mut self, period: Duration) {
        let used_at = self.repository.used_at();
        let is_news = used_at > self.written_use.saturating_add(period.as_secs());
        if !is_news || !is_mirror(&self.repository.mirror) {
            return;
        }
        match write_used_at(&self.repository.mirror, used_at) {
            Ok(()) => self.written_use = used_at,
            Err((path, error)) => {
                warn!(%error, path = %path.display(), "Can't store the time at which a mirror was last used");
            }
        }
    }

    pub(super) fn write_use_now_and_then(&mut self) {
        self.write_use(USE_PERIOD);
    }

    /// Removes the mirror if it is unused. Returns whether it did: then the task must end.
    pub(super) async fn remove_if_unused(&mut self) -> bool {
        if !is_unused(&self.context, &self.repository) {
            return false;
        }
        let name = self.repository.name.clone();
        match self.remove(Snapshots::Kept, RemovalCondition::Unused).await {
            Ok(true) => {
                info!(
                    repo = %name,
                    "Removed the mirror of {name}: unused for longer than remove_unused_after"
                );
                true
            }
            Ok(false) => false,
            Err(error) => {
                warn!(
                    repo = %name,
                    error = chain(&error),
                    "Can't remove the unused mirror of {name}"
                );
                false
            }
        }
    }

    /// Forgets the repository if a waiting request asks for it. Returns whether it did: then the
    /// task must end.
    pub(super) async fn forget_if_requested(&mut self, waiting: &mut Vec<TaskRequest>) -> bool {
        let is_forget = |request: &mut TaskRequest| matches!(request, TaskRequest::Forget(..));
        let asked: Vec<_> = waiting.extract_if(.., is_forget).collect();
        if asked.is_empty() {
            return false;
        }
        let is_delete =
            |request: &TaskRequest| matches!(request, TaskRequest::Forget(Snapshots::Deleted, _));
        let snapshots = if asked.iter().any(is_delete) {
            Snapshots::Deleted
        } else {
            Snapshots::Kept
        };
        let outcome = self
            .remove(snapshots, RemovalCondition::Always)
            .await
            .map(drop);
        let is_removed = outcome.is_ok();
        if is_removed {
            let name = &self.repository.name;
            info!(repo = %name, ?snapshots, "Forgot the repository {name}");
            for request in waiting.drain(..) {
                request.answer(&Err(RepositoryError::Forgotten));
            }
        }
        for request in asked {
            if let TaskRequest::Forget(_, sender) = request {
                drop(sender.send(outcome.clone()));
            }
        }
        is_removed
    }

    /// Removes the mirror and answers all requests to the repository. Returns whether `condition`
    /// held.
    async fn remove(
        &mut self,
        snapshots: Snapshots,
        condition: RemovalCondition,
    ) -> Result<bool, RepositoryError> {
        let (context, repository) = (Arc::clone(&self.context), Arc::clone(&self.repository));
        let repositories = Arc::clone(&self.repositories);
        // A running LFS job would write new objects into the store while the snapshots are deleted.
        // So it is ended first, and its lock is held until the deletion is over.
        let lfs_has_ended = match snapshots {
            Snapshots::Deleted => Some(self.repository.lfs.end().await),
            Snapshots::Kept => None,
        };
        let work = move || {
            let failed = |path: &Path| {
                let path = path.to_owned();
                |source| RepositoryError::Mirror(Arc::new(MirrorError::Io { path, source }))
            };
            let store = context.publisher.store();
            let from = (&*repositories, &*repository);
            let Some(removed) =
                move_mirror_away(&context, from, condition).map_err(failed(&repository.mirror))?
            else {
                return Ok(false);
            };
            // Only after the mirror is away: if it can't be moved, the repository stays as it was.
            if snapshots == Snapshots::Deleted {
                let deleted = wait(store.delete(&repository.name));
                deleted.map_err(|error| RepositoryError::Store(Arc::new(error)))?;
            }
            // Slow for a large mirror. If it fails, the next start deletes the rest from `tmp`.
            removed.close().map_err(failed(&repository.mirror))?;
            Ok(true)
        };
        let removed = tokio::task::spawn_blocking(work).await;
        drop(lfs_has_ended);
        if matches!(removed, Ok(Ok(true))) {
            drop(self.repository.lfs.end().await);
        } else {
            self.repository.lfs.go_on();
        }
        let removed = removed.map_err(|_| RepositoryError::Stopping)??;
        if removed {
            self.answer_waiting();
        }
        Ok(removed)
    }

    /// Answers all requests in the queue: the repository was forgotten.
    fn answer_waiting(&mut self) {
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            match request {
                TaskRequest::Forget(_, sender) => drop(sender.send(Ok(()))),
                request => request.answer(&Err(RepositoryError::Forgotten)),
            }
        }
        let config = self.context.config.now();
        self.repository.change_status(|status| {
            let error = RepositoryError::Forgotten;
            status.fail(error, config.fetch_interval, &config.mirrors);
        });
    }
}

/// Returns whether the mirror has been unused for as long as mirrors are kept.
fn is_unused(context: &Context, repository: &Repository) -> bool {
    let limit = context.config.now().mirrors.remove_unused_after;
    let unused = seconds_since_epoch().saturating_sub(repository.used_at());
    !limit.is_zero() && unused >= limit.as_secs().max(1) && is_mirror(&repository.mirror)
}

/// Moves the mirror into `tmp` and takes the repository off the list. The next request for it
/// starts a new task.
fn move_mirror_away(
    context: &Context,
    (repositories, repository): (&Repositories, &Repository),
    condition: RemovalCondition,
) -> std::io::Result<Option<TempDir>> {
    // Under this lock nobody can open the repository. So `condition` is checked, the mirror moved
    // and the entry removed as one step: no new task can meet the old mirror.
    let mut repositories = repositories.0.lock();
    if condition == RemovalCondition::Unused && !is_unused(context, repository) {
        return Ok(None);
    }
    let removed = repository.take_mirror_away(&context.config.now().data_dir.tmp())?;
    repositories.remove(&repository.name);
    Ok(Some(removed))
}
