//! Mirrors that go: those that nobody has used for long, and those that an operator wants forgotten.
//!
//! What is published stays in the store unless the operator says otherwise; a mirror that is wanted again is
//! restored from there.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;
use tracing::{info, warn};

use super::Repository;
use super::registry::Registry;
use super::worker::{Request, Worker};
use super::{MirrorState, RepositoryError};
use crate::app::tmp_directory;
use crate::clock::seconds_since_epoch;
use crate::error_chain::chain;
use crate::mirror::{MirrorError, is_mirror};

/// When a mirror was last used is the time of this file in it.
const USED: &str = "cachewfs-used";
/// It is written no more often than this, however many requests come.
const USE_PERIOD: Duration = Duration::from_hours(1);

/// Whether what is published of a repository goes with its mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Snapshots {
    Kept,
    Deleted,
}

/// Which repositories a removal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    /// Unless somebody asks for it at the last moment.
    Unused,
}

/// When the mirror was last used, in seconds since the epoch; now if nothing is known of it.
pub(super) fn used_at(mirror: &Path) -> u64 {
    let modified = mirror
        .join(USED)
        .metadata()
        .and_then(|used| used.modified());
    let since = modified
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or_else(seconds_since_epoch, |since| since.as_secs())
}

impl Worker {
    /// Whether nobody has used the mirror for as long as mirrors are kept.
    fn is_unused(&self) -> bool {
        self.registry.is_unused(&self.repository)
    }

    /// Writes down when the mirror was last used, if that was long after what is written there.
    pub(super) fn write_use(&mut self, period: Duration) {
        let used_at = self.repository.used_at();
        let is_news = used_at > self.written_use.saturating_add(period.as_secs());
        if !is_news || !is_mirror(&self.repository.mirror) {
            return;
        }
        let path = self.repository.mirror.join(USED);
        let time = UNIX_EPOCH + Duration::from_secs(used_at);
        match File::create(&path).and_then(|file| file.set_modified(time)) {
            Ok(()) => self.written_use = used_at,
            Err(error) => {
                warn!(%error, path = %path.display(), "Can't note when a mirror was used");
            }
        }
    }

    pub(super) fn write_use_now_and_then(&mut self) {
        self.write_use(USE_PERIOD);
    }

    /// Removes the mirror if it is unused; tells whether it did, so that the task has to end.
    pub(super) async fn has_gone(&mut self) -> bool {
        if !self.is_unused() {
            return false;
        }
        let name = self.repository.name.clone();
        match self.remove(Snapshots::Kept, Condition::Unused).await {
            Ok(true) => {
                info!(repo = %name, "Removed the mirror of {name}, which nobody uses");
                true
            }
            Ok(false) => false,
            Err(error) => {
                warn!(repo = %name, error = chain(&error), "Can't remove the unused mirror of {name}");
                false
            }
        }
    }

    /// Forgets the repository if one of those who wait asks for that; tells whether it did, so that
    /// the task has to end.
    pub(super) async fn is_forgotten(&mut self, waiting: &mut Vec<Request>) -> bool {
        let is_forget = |request: &mut Request| matches!(request, Request::Forget(..));
        let asked: Vec<_> = waiting.extract_if(.., is_forget).collect();
        if asked.is_empty() {
            return false;
        }
        let is_delete =
            |request: &Request| matches!(request, Request::Forget(Snapshots::Deleted, _));
        let snapshots = if asked.iter().any(is_delete) {
            Snapshots::Deleted
        } else {
            Snapshots::Kept
        };
        let outcome = self.remove(snapshots, Condition::Always).await.map(drop);
        let has_gone = outcome.is_ok();
        if has_gone {
            let name = &self.repository.name;
            info!(repo = %name, ?snapshots, "Forgot {name}");
            for request in waiting.drain(..) {
                request.answer(&Err(RepositoryError::Forgotten));
            }
        }
        for request in asked {
            if let Request::Forget(_, sender) = request {
                drop(sender.send(outcome.clone()));
            }
        }
        has_gone
    }

    /// Removes the mirror and ends what waits for the repository; tells whether `condition` held.
    async fn remove(
        &mut self,
        snapshots: Snapshots,
        condition: Condition,
    ) -> Result<bool, RepositoryError> {
        let (registry, repository) = (Arc::clone(&self.registry), Arc::clone(&self.repository));
        let lfs_has_ended = match snapshots {
            Snapshots::Deleted => Some(self.repository.lfs.end().await),
            Snapshots::Kept => None,
        };
        let work = move || {
            let failed = |path: &Path| {
                let path = path.to_owned();
                |source| RepositoryError::Mirror(Arc::new(MirrorError::Io { path, source }))
            };
            let store = registry.publisher.store();
            let Some(removed) = registry
                .take_mirror_away(&repository, condition)
                .map_err(failed(&repository.mirror))?
            else {
                return Ok(false);
            };
            if snapshots == Snapshots::Deleted {
                let deleted = store.delete(&repository.name);
                deleted.map_err(|error| RepositoryError::Store(Arc::new(error)))?;
            }
            // Slow for a large mirror; what is left is swept at the next start.
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
            self.end_waiting();
        }
        Ok(removed)
    }

    /// Tells all who wait for the repository that it has been forgotten.
    fn end_waiting(&mut self) {
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            match request {
                Request::Forget(_, sender) => drop(sender.send(Ok(()))),
                request => request.answer(&Err(RepositoryError::Forgotten)),
            }
        }
        let config = self.registry.config.now();
        self.repository.change_status(|status| {
            let error = RepositoryError::Forgotten;
            status.fail(error, config.fetch_interval, &config.mirrors);
        });
    }
}

impl Registry {
    fn is_unused(&self, repository: &Repository) -> bool {
        let limit = self.config.now().mirrors.remove_unused_after;
        let unused = seconds_since_epoch().saturating_sub(repository.used_at());
        !limit.is_zero() && unused >= limit.as_secs().max(1) && is_mirror(&repository.mirror)
    }

    /// Moves the mirror away and takes the repository off the list, so that whoever asks for it from
    /// now on begins anew.
    fn take_mirror_away(
        &self,
        repository: &Repository,
        condition: Condition,
    ) -> std::io::Result<Option<TempDir>> {
        let tmp = tmp_directory(&self.config.now());
        let removed = tempfile::Builder::new()
            .prefix("removed-")
            .tempdir_in(&tmp)?;
        let mut repositories = self.lock_repositories();
        if condition == Condition::Unused && !self.is_unused(repository) {
            return Ok(None);
        }
        match fs::rename(&repository.mirror, removed.path().join("mirror.git")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        repositories.remove(&repository.name);
        repository.change_status(|status| status.state = MirrorState::Empty);
        Ok(Some(removed))
    }
}
