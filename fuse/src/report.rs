//! Reports on parts of a mount, for `cachewfs status` and for another process of the mount.

use std::path::PathBuf;

use cachewfs_format::{RepoName, SnapshotId};
use serde::{Deserialize, Serialize};

/// A failure that lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReport {
    /// The reason, with its whole chain of causes, in one line.
    pub reason: String,
    /// The time of its first occurrence, in seconds since the epoch.
    pub since: u64,
}

/// A file or directory of a repository whose last read failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedReadReport {
    /// The path in the repository's directory. A directory stands for the names in it.
    pub path: String,
    /// The reason, and since when reads of this path fail.
    #[serde(flatten)]
    pub failure: FailureReport,
}

/// A file of a snapshot whose bytes in the cache were not those that had arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedFileReport {
    /// The path in the archive, or words for several small files.
    pub path: String,
    /// The bytes that the cache dropped.
    pub damaged_bytes: u64,
}

/// Counts of requests to the daemons and of the bytes they sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficReport {
    /// HTTP requests.
    pub requests: u64,
    /// Bytes of response bodies.
    pub fetched_bytes: u64,
    /// Of `fetched_bytes`, the bytes that a reader waited for.
    pub demand_bytes: u64,
    /// Requests that a reader waited for.
    pub demand_requests: u64,
    /// Retries of failed requests.
    pub retries: u64,
    /// Of `fetched_bytes`, the bytes of direct reads: from the bucket that a daemon redirected to.
    #[serde(default)]
    pub direct_bytes: u64,
}

/// Whether the kernel reads complete files of the cache itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassthroughReport {
    /// Whether it does.
    pub is_used: bool,
    /// Why it doesn't, in one line.
    pub reason: Option<String>,
}

/// The traffic of the last ten minutes for which a process waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// The id of the process.
    pub process: u32,
    /// Its name, such as `git`.
    pub name: String,
    /// Bytes of response bodies.
    pub fetched_bytes: u64,
    /// HTTP requests.
    pub requests: u64,
    /// When it last fetched something, in seconds since the epoch.
    pub last_at: u64,
}

/// The state of a repository in a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoReport {
    /// The repository.
    pub repo: RepoName,
    /// The snapshot that the mount shows, or `None` until the first lookup succeeds.
    pub snapshot: Option<SnapshotId>,
    /// Whether it is pinned.
    pub is_pinned: bool,
    /// Length of the archive in bytes.
    pub archive_bytes: u64,
    /// How much of each part is cached.
    pub parts: Vec<PartReport>,
    /// How many times the mount moved to a new snapshot since it started.
    pub catch_ups: u64,
    /// When the mount last asked the daemon for a newer snapshot, in seconds since the epoch.
    pub checked_at: Option<u64>,
    /// The last error, or `None` if a later attempt succeeded.
    pub last_error: Option<String>,
    /// Why the mount doesn't fetch the snapshot by itself, or `None` if it does.
    #[serde(default)]
    pub unhydrated: Option<String>,
    /// The files whose last read failed, the latest first.
    #[serde(default)]
    pub failed_reads: Vec<FailedReadReport>,
    /// A sentence about files of HEAD's tree that the work tree lacks.
    #[serde(default)]
    pub notice: Option<String>,
    /// Clones that borrow its objects.
    pub clones: Vec<PathBuf>,
    /// The traffic of this repository.
    pub traffic: TrafficReport,
}

/// How much of one part of a repository is cached. Right after a restart, chunks count as cached
/// before their checksums have been compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartReport {
    /// `refs`, `index` (of the work tree), `work tree`, `pack indexes`, or a kind of packs: `tip`,
    /// `increments`, `recent`, `commits`, `trees` or `history`.
    pub part: String,
    /// Cached bytes, compressed as in the archive.
    pub cached_bytes: u64,
    /// Compressed bytes of the part in the archive.
    pub total_bytes: u64,
}
