//! The state of repositories in the daemon, as JSON: one model for `/api/v1/repos`, for
//! `/api/v1/status` and for the status page.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ObjectId, RepoName, SnapshotId};

/// The state of a repository in the daemon: an item of a list, and of the status page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoStatus {
    /// The repository.
    pub repo: RepoName,
    /// Whether the daemon has a mirror, or tries to make one. If not, another daemon has published
    /// the repository, or this one before the mirror was removed.
    pub has_mirror: bool,
    /// The state of its mirror.
    pub state: MirrorState,
    /// The failure of the last job, if it failed.
    pub failure: Option<FailureStatus>,
    /// When the last successful update of the mirror was, in seconds since the epoch.
    pub updated_at: Option<u64>,
    /// The job that is running or waiting for this repository.
    pub job: Option<JobStatus>,
    /// When the next periodic update begins, in seconds since the epoch. A request may start an
    /// update earlier. `None` if there is no mirror that is updated periodically.
    pub next_update_at: Option<u64>,
    /// The published snapshot.
    pub published: Option<PublishedStatus>,
    /// The LFS archive. `None` if no client has requested it yet, or if no file is stored with Git
    /// LFS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lfs: Option<LfsStatus>,
}

impl RepoStatus {
    /// Returns the last failure to make the LFS archive, if no later run succeeded.
    pub fn lfs_failure(&self) -> Option<&FailureStatus> {
        self.lfs.as_ref().and_then(|lfs| lfs.failure.as_ref())
    }

    /// Returns whether the LFS archive is being made.
    pub fn is_lfs_running(&self) -> bool {
        self.lfs.as_ref().is_some_and(|lfs| lfs.is_running)
    }

    /// Returns whether the last job or the last run for LFS failed.
    pub fn is_failing(&self) -> bool {
        self.failure.is_some() || self.lfs_failure().is_some()
    }
}

/// A repository with its newest snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoOverview {
    /// The repository's item in the list.
    #[serde(flatten)]
    pub status: RepoStatus,
    /// The time since the last successful check or update from upstream. `None` if there was none
    /// since the daemon started.
    pub lag_seconds: Option<u64>,
    /// The newest snapshots, newest first.
    pub snapshots: Vec<SnapshotStatus>,
    /// The number of snapshots that the store keeps.
    pub snapshots_total: usize,
}

/// The details of one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoDetail {
    /// The state of the repository, and its snapshots.
    #[serde(flatten)]
    pub overview: RepoOverview,
    /// The refs of the mirror, or `None` if there is no mirror.
    pub refs: Option<RefsStatus>,
}

/// The state of a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MirrorState {
    /// There is no mirror.
    Empty,
    /// The mirror is being restored from the snapshot in the store.
    Restoring,
    /// The mirror is being cloned.
    Cloning,
    /// The mirror exists.
    Ready,
    /// There is no mirror, because cloning failed.
    Failed,
}

impl MirrorState {
    /// All states.
    pub const ALL: [Self; 5] = [
        Self::Empty,
        Self::Restoring,
        Self::Cloning,
        Self::Ready,
        Self::Failed,
    ];

    /// Returns its name in JSON, on the status page and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Restoring => "restoring",
            Self::Cloning => "cloning",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }
}

/// The kind of work that a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobClass {
    /// The first clone of a mirror, with the update that ends it.
    Clone,
    /// An update of a mirror.
    Update,
    /// A publish.
    Publish,
    /// Maintenance of a mirror, such as a repack.
    Maintain,
    /// An archive of LFS objects is made.
    Lfs,
}

impl JobClass {
    /// All classes, in the order of the enum.
    pub const ALL: [Self; 5] = [
        Self::Clone,
        Self::Update,
        Self::Publish,
        Self::Maintain,
        Self::Lfs,
    ];

    /// Returns its name in JSON, on the status page and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Update => "update",
            Self::Publish => "publish",
            Self::Maintain => "maintain",
            Self::Lfs => "lfs",
        }
    }
}

/// A job of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// The kind of work.
    pub class: JobClass,
    /// Whether the job is running. If not, it is waiting for its turn.
    pub is_running: bool,
    /// How long the job has been running or waiting, in seconds.
    pub since_seconds: u64,
    /// The name of another daemon that is publishing this repository, if the job waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// The refs of a mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefsStatus {
    /// The commit of HEAD, or `None` if HEAD has no commit.
    pub head: Option<ObjectId>,
    /// The first refs in the order of their names, with the id of the object that each names.
    pub named: BTreeMap<String, ObjectId>,
    /// Whether the mirror has more refs than `named`.
    pub is_cut: bool,
}

/// A snapshot that the store keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// Its id.
    pub snapshot: SnapshotId,
    /// When it was made, in seconds since the epoch.
    pub created_at: u64,
    /// The length in bytes of the checkout archive, or of the mirror archive if there is no other.
    pub bytes: u64,
    /// The bytes of this archive whose segments the previous snapshot has too. `None` for the
    /// oldest snapshot.
    pub shared_bytes: Option<u64>,
}

/// The state of a repository's LFS archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LfsStatus {
    /// Whether the daemon is making it now.
    pub is_running: bool,
    /// The published LFS archive, if there is one.
    pub published: Option<PublishedLfs>,
    /// The reason why the last attempt failed, if it failed.
    pub failure: Option<FailureStatus>,
}

/// A published LFS archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedLfs {
    /// The snapshot whose LFS objects the archive has.
    pub snapshot: SnapshotId,
    /// When it became current, in seconds since the epoch.
    pub published_at: u64,
    /// The length of the archive in bytes.
    pub bytes: u64,
}

/// The reason why the daemon can't bring a repository up to date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureStatus {
    /// A stable code for programs: one of [`code`](super::code).
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// When the first of these failures was, in seconds since the epoch.
    pub since: u64,
    /// The number of tries since then, or since the last refresh that a client requested.
    pub tries: u32,
    /// When the next retry is, in seconds since the epoch.
    pub next_try_at: u64,
}

/// The published state of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedStatus {
    /// The current snapshot.
    pub snapshot: SnapshotId,
    /// When it became current, in seconds since the epoch.
    pub published_at: u64,
    /// The length of the mirror archive in bytes.
    pub mirror_bytes: u64,
    /// The length of the checkout archive in bytes, or `None` if there is no checkout archive.
    pub checkout_bytes: Option<u64>,
    /// A sentence about files of HEAD's tree that the work tree doesn't have, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// The list of all repositories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoList {
    /// The repositories, in the order of their names.
    pub repos: Vec<RepoStatus>,
    /// The hosts that the daemon mirrors from.
    pub hosts: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_classes_have_one_name_each() {
        let states = MirrorState::ALL.map(|state| (serde_json::to_value(state), state.as_str()));
        let classes = JobClass::ALL.map(|class| (serde_json::to_value(class), class.as_str()));

        for (json, name) in states.into_iter().chain(classes) {
            assert_eq!(json.unwrap(), name);
        }
    }
}
