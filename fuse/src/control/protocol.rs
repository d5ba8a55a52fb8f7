//! What CLI and mount say to each other over the control socket: one JSON value a line.
//!
//! The client sends one [`ControlRequest`]; the mount answers with any number of [`Reply::Progress`] and
//! one last [`Reply::Done`] or [`Reply::Failed`], then closes the connection. A client that closes
//! it first stops waiting, and the work that it waited for.

use std::path::PathBuf;

use cachewfs_format::{RepoName, SnapshotId};
use serde::{Deserialize, Serialize};

/// What a client asks of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum ControlRequest {
    /// What the mount is doing; answered with [`ControlAnswer::Status`].
    Status,
    /// Waits until the repository can be read, and for a first clone upstream if need be; answered
    /// with [`ControlAnswer::Resolved`].
    Resolve {
        /// The repository.
        repo: RepoName,
    },
    /// Brings chunks into the cache; answered with [`ControlAnswer::Fetched`].
    Prefetch {
        /// The repository.
        repo: RepoName,
        /// Which part.
        part: SnapshotPart,
    },
    /// Brings everything into the cache and never evicts it; answered with [`ControlAnswer::Fetched`].
    Pin {
        /// The repository.
        repo: RepoName,
    },
    /// Lets a pinned repository be evicted again; answered with [`ControlAnswer::Nothing`].
    Unpin {
        /// The repository.
        repo: RepoName,
    },
    /// Makes the daemon ask upstream, and catches up; answered with [`ControlAnswer::Resolved`].
    Refresh {
        /// The repository.
        repo: RepoName,
    },
    /// Remembers a clone that borrows the mount's objects; answered with [`ControlAnswer::Nothing`].
    RegisterClone {
        /// The repository.
        repo: RepoName,
        /// The top of the clone's work tree.
        directory: PathBuf,
    },
    /// Unmounts and ends the mount's process; answered with [`ControlAnswer::Nothing`] before it does.
    Stop,
}

/// A part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotPart {
    /// Refs, commit-graph, pack indexes and the tip pack: all that a checkout needs.
    Hot,
    /// And all commits.
    Commits,
    /// And all git trees.
    Trees,
    /// Everything.
    All,
}

/// One line from the mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Work goes on.
    Progress(Progress),
    /// The request is done.
    Done(ControlAnswer),
    /// The request failed.
    Failed {
        /// What happened, the whole chain of causes in one line.
        message: String,
    },
}

impl Reply {
    /// The reply as a line, its end included.
    pub(super) fn to_line(&self) -> serde_json::Result<String> {
        let mut line = serde_json::to_string(self)?;
        line.push('\n');
        Ok(line)
    }
}

/// How far a request is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, for people.
    pub step: String,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes to do; 0 where it isn't known.
    pub total_bytes: u64,
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum ControlAnswer {
    /// Nothing to say.
    Nothing,
    /// The state of the mount.
    Status(StatusReport),
    /// The repository can be read.
    Resolved {
        /// The snapshot that is shown.
        snapshot: SnapshotId,
        /// The URL of upstream, from the snapshot's `config`.
        upstream_url: Option<String>,
        /// The default branch; absent where HEAD is detached.
        default_branch: Option<String>,
        /// The directory whose `objects` a clone borrows.
        objects_directory: PathBuf,
        /// A sentence about files of HEAD's tree that the work tree lacks.
        #[serde(default)]
        notice: Option<String>,
    },
    /// The chunks are in the cache.
    Fetched {
        /// Bytes that were fetched for it, as stored.
        fetched_bytes: u64,
    },
}

/// The state of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The version of the program that serves the mount.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The daemons that it asks, in order.
    pub daemons: Vec<String>,
    /// Where chunks are kept.
    pub cache_dir: PathBuf,
    /// Bytes of disk that the cache takes.
    pub cache_bytes: u64,
    /// Bytes of disk that it may take.
    pub cache_max_bytes: u64,
    /// All traffic since the mount started.
    pub traffic: TrafficReport,
    /// The repositories looked at since the mount started, and the pinned ones.
    pub repos: Vec<RepoReport>,
}

/// What was asked of the daemons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficReport {
    /// HTTP requests.
    pub requests: u64,
    /// Bytes of their bodies.
    pub fetched_bytes: u64,
    /// Of these, bytes that a reader waited for.
    pub demand_bytes: u64,
    /// Requests that a reader waited for.
    pub demand_requests: u64,
    /// Requests that failed and were tried again.
    pub retries: u64,
    /// Of the bytes, those that were read where a daemon pointed.
    #[serde(default)]
    pub direct_bytes: u64,
}

/// The state of a repository in a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoReport {
    /// The repository.
    pub repo: RepoName,
    /// The snapshot that is shown; absent while the first lookup goes on or has failed.
    pub snapshot: Option<SnapshotId>,
    /// Whether it is pinned.
    pub is_pinned: bool,
    /// Length of the archive in bytes.
    pub archive_bytes: u64,
    /// What is cached of each part.
    pub parts: Vec<PartReport>,
    /// How often the mount caught up with a new snapshot since it started.
    pub catch_ups: u64,
    /// When the daemon was last asked, in seconds since the epoch.
    pub checked_at: Option<u64>,
    /// What went wrong last, if nothing went right since.
    pub last_error: Option<String>,
    /// A sentence about files of HEAD's tree that the work tree lacks.
    #[serde(default)]
    pub notice: Option<String>,
    /// Clones that borrow its objects.
    pub clones: Vec<PathBuf>,
    /// Its share of the traffic.
    pub traffic: TrafficReport,
}

/// What is cached of one part of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartReport {
    /// `refs`, `indexes`, `tip`, `increments`, `work tree`, `commits`, `trees` or `history`.
    pub part: String,
    /// Bytes cached, as stored in the archive.
    pub cached_bytes: u64,
    /// Bytes in the archive.
    pub total_bytes: u64,
}
