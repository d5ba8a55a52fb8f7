//! The handle of a repository: its status, and requests to its task.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cachewfs_format::RepoName;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use super::checks::Checks;
use super::last_use::used_at;
use super::lfs_state::Lfs;
use super::request::{RunOutcome, Snapshots, TaskRequest};
use super::{MirrorState, RepositoryError, Status};
use crate::base::seconds_since_epoch;
use crate::mirror::Upstream;
use crate::publish::BuildFeed;
use crate::traces::{Cause, FirstCause};

/// A repository that a task works on, as all other parts of the daemon see it.
#[derive(Debug)]
pub(crate) struct Repository {
    pub(super) name: RepoName,
    /// May change when the configuration is reloaded.
    upstream: Mutex<Arc<Upstream>>,
    pub(super) mirror: PathBuf,
    pub(super) status: watch::Sender<Status>,
    pub(super) checks: Checks,
    /// The bytes of the first snapshot while it is being built.
    pub(crate) feed: BuildFeed,
    pub(super) lfs: Lfs,
    requests: mpsc::Sender<TaskRequest>,
    /// The cause of the next run, for traces.
    pub(super) cause: FirstCause,
    /// When the repository was last requested, in seconds since the epoch.
    used_at: AtomicU64,
}

impl Repository {
    /// Creates the handle of a repository with this upstream and this path of its mirror.
    pub(super) fn new(
        name: RepoName,
        (upstream, mirror): (Upstream, PathBuf),
        status: Status,
        (checks, requests): (Checks, mpsc::Sender<TaskRequest>),
    ) -> Self {
        let last_use = used_at(&mirror);
        Self {
            name,
            upstream: Mutex::new(Arc::new(upstream)),
            mirror,
            status: watch::Sender::new(status),
            feed: BuildFeed::default(),
            lfs: Lfs::default(),
            checks,
            requests,
            cause: FirstCause::new(Cause::current()),
            used_at: AtomicU64::new(last_use),
        }
    }

    pub(crate) fn name(&self) -> &RepoName {
        &self.name
    }

    pub(crate) fn upstream(&self) -> Arc<Upstream> {
        Arc::clone(&self.upstream.lock())
    }

    pub(super) fn set_upstream(&self, upstream: Upstream) {
        let mut present = self.upstream.lock();
        *present = Arc::new(upstream.after(&present));
    }

    /// Returns the path of the mirror, for reading only. The mirror exists once the status is
    /// ready.
    pub(crate) fn mirror_path(&self) -> PathBuf {
        self.mirror.clone()
    }

    /// Moves the mirror, if there is one, into a new directory below `tmp`. Dropping that directory
    /// deletes it.
    pub(super) fn take_mirror_away(&self, tmp: &Path) -> io::Result<TempDir> {
        let away = tempfile::Builder::new()
            .prefix("removed-")
            .tempdir_in(tmp)?;
        // Renamed, not deleted here: deleting takes long, and a half-deleted mirror must not look
        // like a mirror.
        match fs::rename(&self.mirror, away.path().join("mirror.git")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.change_status(|status| status.state = MirrorState::Empty);
        Ok(away)
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits until the status fulfils `is_wanted`, which may be at once, and returns it.
    pub(crate) async fn status_when(&self, is_wanted: impl FnMut(&Status) -> bool) -> Status {
        let mut statuses = self.status.subscribe();
        match statuses.wait_for(is_wanted).await {
            Ok(status) => status.clone(),
            // The sender is a field of this repository, so it is not dropped.
            Err(_) => self.status(),
        }
    }

    pub(super) fn change_status(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }

    /// Notes that a client requests the repository now.
    pub(super) fn note_use(&self) {
        self.used_at.store(seconds_since_epoch(), Ordering::Relaxed);
    }

    /// Returns when the repository was last requested, in seconds since the epoch.
    pub(super) fn used_at(&self) -> u64 {
        self.used_at.load(Ordering::Relaxed)
    }

    /// Waits for an update that begins after this call, and for the publish that follows it.
    pub(crate) async fn refresh(&self) -> RunOutcome {
        self.ask(TaskRequest::Publish).await
    }

    /// Waits for an update that begins after this call, but not for the publish that follows it.
    pub(crate) async fn update(&self) -> Result<(), RepositoryError> {
        self.ask(TaskRequest::Update).await
    }

    /// Waits for an update that begins after this call, and for a publish that writes all packs
    /// anew.
    pub(crate) async fn lay_out_anew(&self) -> RunOutcome {
        self.ask(TaskRequest::LayOutAnew).await
    }

    /// Ends the repository's task and removes its mirror.
    pub(crate) async fn forget(&self, snapshots: Snapshots) -> Result<(), RepositoryError> {
        self.ask(|sender| TaskRequest::Forget(snapshots, sender))
            .await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, RepositoryError>>) -> TaskRequest,
    ) -> Result<T, RepositoryError> {
        let (answer, outcome) = oneshot::channel();
        self.cause.note();
        // Never blocks: a full queue is an error for the client. Waiting here would only hide that
        // the task can't keep up.
        self.requests
            .try_send(request(answer))
            .map_err(|error| match error {
                TrySendError::Full(_) => RepositoryError::Busy,
                TrySendError::Closed(_) => RepositoryError::Forgotten,
            })?;
        outcome.await.map_err(|_| RepositoryError::Stopping)?
    }
}
