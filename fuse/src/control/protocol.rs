//! The messages on the control socket between CLI and mount: one JSON value on each line.
//!
//! The client sends one [`ControlRequest`]; the mount answers with any number of
//! [`Reply::Progress`] and one last [`Reply::Done`] or [`Reply::Failed`], then closes the
//! connection. If the client closes the connection first, the mount drops the request.
//!
//! ```text
//! client                                       mount
//!   {"request":"refresh","repo":"…"}    ──►
//!                                       ◄──    {"reply":"progress","step":"…",…}
//!                                       ◄──    {"reply":"done","answer":"resolved",…}
//!                                              closes the connection
//! ```

use std::path::PathBuf;

pub use cachewfs_format::SnapshotPart;
use cachewfs_format::api::EnsureRefsRequest;
use cachewfs_format::{RepoName, SnapshotId};
use serde::{Deserialize, Serialize};

pub use crate::report::{
    DamagedFileReport, FailedReadReport, FailureReport, PartReport, PassthroughReport,
    ProcessReport, RepoReport, TrafficReport,
};
pub use crate::repository::PathReader;

/// A request of a client to a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum ControlRequest {
    /// Reports the state of the mount. The answer is [`ControlAnswer::Status`].
    Status,
    /// Waits until the repository can be read, also while the daemon clones it for the first time.
    /// The answer is [`ControlAnswer::Resolved`].
    Resolve {
        /// The repository.
        repo: RepoName,
    },
    /// Fetches a part of the snapshot into the cache. The answer is [`ControlAnswer::Fetched`].
    Prefetch {
        /// The repository.
        repo: RepoName,
        /// The part to fetch.
        part: SnapshotPart,
    },
    /// Fetches some files of HEAD into the cache. The answer is [`ControlAnswer::Fetched`].
    PrefetchPaths {
        /// The repository.
        repo: RepoName,
        /// Paths of files and directories in the work tree.
        paths: Vec<String>,
        /// Where the files are read from.
        reader: PathReader,
    },
    /// Fetches the whole snapshot into the cache and never evicts it. The answer is
    /// [`ControlAnswer::Fetched`].
    Pin {
        /// The repository.
        repo: RepoName,
    },
    /// Allows eviction of a pinned repository again. The answer is [`ControlAnswer::Nothing`].
    Unpin {
        /// The repository.
        repo: RepoName,
    },
    /// Drops what the cache has of a repository. The answer is [`ControlAnswer::Freed`].
    Forget {
        /// The repository.
        repo: RepoName,
        /// Whether a pinned repository is unpinned.
        force: bool,
    },
    /// Compares the cached bytes of a repository with their checksums. The answer is
    /// [`ControlAnswer::Checked`].
    Check {
        /// The repository.
        repo: RepoName,
    },
    /// Makes the daemon fetch from upstream, then moves the mount to the newest snapshot. The
    /// answer is [`ControlAnswer::Resolved`].
    Refresh {
        /// The repository.
        repo: RepoName,
    },
    /// Waits until the daemon has refs and commits, for some minutes at most. Then moves the mount
    /// to the newest snapshot. The answer is [`ControlAnswer::Resolved`].
    Await {
        /// The repository.
        repo: RepoName,
        /// The refs and commits.
        wanted: EnsureRefsRequest,
    },
    /// Registers a clone that borrows the mount's objects. The answer is
    /// [`ControlAnswer::Nothing`].
    RegisterClone {
        /// The repository.
        repo: RepoName,
        /// The top of the clone's work tree.
        directory: PathBuf,
    },
    /// Forgets that a clone borrows the mount's objects. The answer is [`ControlAnswer::Nothing`].
    UnregisterClone {
        /// The top of the clone's work tree.
        directory: PathBuf,
    },
    /// Asks for the options of the mount, to replace its process. The answer is
    /// [`ControlAnswer::Options`].
    Options,
    /// Hands the mount over to the process that asks, over this connection. Before that, it answers
    /// [`ControlAnswer::Nothing`].
    Replace,
    /// Answers all calls that wait, and lets none wait for some seconds, so that the machine can
    /// sleep. The answer is [`ControlAnswer::Nothing`].
    BeforeSleep,
    /// Unmounts and ends the mount's process. Before that, it answers [`ControlAnswer::Nothing`].
    Stop,
}

/// One line from the mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The request is being worked on.
    Progress(Progress),
    /// The request is done.
    Done(ControlAnswer),
    /// The request failed.
    Failed {
        /// The reason, with its whole chain of causes, in one line.
        message: String,
    },
}

impl Reply {
    /// Returns the reply as a line, with the line feed.
    pub(super) fn to_line(&self) -> serde_json::Result<String> {
        let mut line = serde_json::to_string(self)?;
        line.push('\n');
        Ok(line)
    }
}

/// A progress report of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// A description of the current step, for people.
    pub step: String,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes to do, or 0 if the number isn't known.
    pub total_bytes: u64,
}

/// The result of a request that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum ControlAnswer {
    /// The request has no result.
    Nothing,
    /// The state of the mount.
    Status(Box<StatusReport>),
    /// The options of the mount.
    Options {
        /// A [`MountOptions`](crate::MountOptions), as JSON.
        options: serde_json::Value,
    },
    /// The repository can be read.
    Resolved {
        /// The snapshot that the mount shows.
        snapshot: SnapshotId,
        /// The URL of upstream, from the snapshot's `config`.
        upstream_url: Option<String>,
        /// The default branch, or `None` if HEAD is detached.
        default_branch: Option<String>,
        /// The directory whose `objects` a clone borrows.
        objects_directory: PathBuf,
        /// A sentence about files of HEAD's tree that the work tree lacks.
        #[serde(default)]
        notice: Option<String>,
    },
    /// The chunks are in the cache.
    Fetched {
        /// Compressed bytes that this request fetched.
        fetched_bytes: u64,
    },
    /// The cached bytes of the repository have left the disk.
    Freed {
        /// The bytes of disk that they took.
        freed_bytes: u64,
    },
    /// The cached bytes have been compared with their checksums.
    Checked {
        /// The bytes of content that are cached.
        checked_bytes: u64,
        /// The files whose bytes were wrong. They have been dropped from the cache.
        damaged: Vec<DamagedFileReport>,
    },
    /// The cache has only some of the chunks. If the request was to pin, the repository is pinned.
    Incomplete {
        /// Compressed bytes of the requested part that the cache has.
        kept_bytes: u64,
        /// Compressed bytes of the requested part.
        total_bytes: u64,
        /// The reason, with its whole chain of causes, in one line.
        reason: String,
    },
}

/// The state of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The version of the program that serves the mount.
    pub version: String,
    /// The id of the mount's process.
    pub pid: u32,
    /// The mount point.
    pub mount_point: PathBuf,
    /// The URLs of the daemons, in the order in which the mount asks them.
    pub daemons: Vec<String>,
    /// The hosts that the daemons mirror from, as far as the mount knows.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The directory of cached chunks.
    pub cache_dir: PathBuf,
    /// Bytes of disk that the cache takes.
    pub cache_bytes: u64,
    /// The limit of the cache in bytes.
    pub cache_max_bytes: u64,
    /// The failure of the cache's disk, or `None` if the cache can be used.
    #[serde(default)]
    pub cache_failure: Option<FailureReport>,
    /// When the cache last evicted bytes that had been used within the minute before, in seconds
    /// since the epoch: it is smaller than what is read at once. `None` if it never did.
    #[serde(default)]
    pub cache_short_at: Option<u64>,
    /// All traffic since the mount started.
    pub traffic: TrafficReport,
    /// Since when no daemon answers, or `None` if one answered the last request.
    #[serde(default)]
    pub outage: Option<FailureReport>,
    /// The repositories that were looked up since the mount started, and the pinned ones.
    pub repos: Vec<RepoReport>,
    /// Whether passthrough is in use, and if not, why. `None` from mounts of earlier versions.
    #[serde(default)]
    pub passthrough: Option<PassthroughReport>,
    /// The processes for which the mount fetched something lately, and first the one for which it
    /// fetched most.
    #[serde(default)]
    pub processes: Vec<ProcessReport>,
}
