//! [`Report`]: the report about the daemon. It is the answer of `/api/v1/status`, and the source of
//! the page.

use std::sync::Arc;
use std::time::Instant;

use cachewfs_format::RepoName;
use serde::Serialize;
use tokio::sync::Mutex;

use super::snapshots::{SnapshotReport, SnapshotReports};
use crate::store::{Store, StoreError};

/// The report about the daemon.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    /// In seconds since the epoch.
    pub(super) now: u64,
    pub(super) uptime_seconds: u64,
    /// `starting`, `ready` or `stopping`.
    pub(super) readiness: &'static str,
    /// The number of all repositories; `repositories` may have fewer. Names that upstream doesn't
    /// have are in neither.
    pub(super) repositories_total: usize,
    pub(super) failing_total: usize,
    pub(super) repositories: Vec<RepositoryReport>,
    pub(super) jobs: Vec<JobsReport>,
    /// Requests and bytes sent, by class of route.
    pub(super) traffic: Vec<TrafficReport>,
    /// Reads of the store, by tier.
    pub(super) tiers: Vec<TrafficReport>,
    pub(super) git: GitReport,
    pub(super) disk: DiskReport,
}

/// The report about one repository.
#[derive(Debug, Serialize)]
pub(super) struct RepositoryReport {
    pub(super) repo: RepoName,
    /// Whether this daemon has a mirror. Without one, another daemon has published the repository,
    /// or this one before the mirror was removed; then only the current snapshot is reported.
    pub(super) has_mirror: bool,
    /// The state of the mirror: `empty`, `restoring`, `cloning`, `ready` or `failed`.
    pub(super) state: &'static str,
    /// The time since the last successful check or update from upstream; `None` if there was none
    /// since the daemon started.
    pub(super) lag_seconds: Option<u64>,
    /// The job that waits or runs now.
    pub(super) job: Option<JobReport>,
    pub(super) failure: Option<FailureReport>,
    /// A sentence about files that are missing in the work tree of the current snapshot.
    pub(super) notice: Option<String>,
    /// Whether the LFS archive is being made.
    pub(super) is_lfs_running: bool,
    /// The last failure to make the LFS archive, if no later run succeeded.
    pub(super) lfs_failure: Option<FailureReport>,
    /// The newest snapshots, the newest first.
    pub(super) snapshots: Vec<SnapshotReport>,
    pub(super) snapshots_total: usize,
}

/// A job that waits or runs.
#[derive(Debug, Serialize)]
pub(super) struct JobReport {
    /// `clone`, `update`, `publish` or `maintain`.
    pub(super) class: &'static str,
    pub(super) is_running: bool,
    pub(super) since_seconds: u64,
    /// Another daemon that already publishes this repository, and that the job waits for.
    pub(super) waits_for: Option<String>,
}

/// The reason why the last run failed, and the time until the next one.
#[derive(Debug, Serialize)]
pub(super) struct FailureReport {
    pub(super) error: String,
    /// The number of failed runs in a row.
    pub(super) failures: u32,
    pub(super) next_try_seconds: u64,
}

/// The number of waiting and running jobs of a class.
#[derive(Debug, Serialize)]
pub(super) struct JobsReport {
    pub(super) class: &'static str,
    pub(super) waiting: i64,
    pub(super) running: i64,
}

/// Requests and bytes, sent or read since the daemon's start.
#[derive(Debug, Serialize)]
pub(super) struct TrafficReport {
    pub(super) name: &'static str,
    pub(super) requests: u64,
    pub(super) bytes: u64,
}

/// The number of answers to git clients, by their source.
#[derive(Debug, Serialize)]
pub(super) struct GitReport {
    pub(super) mirror: u64,
    pub(super) passed_on: u64,
    pub(super) shared: u64,
    pub(super) stale: u64,
}

/// Disk space in bytes. A value that is not known yet is `None`.
#[derive(Debug, Serialize)]
pub(super) struct DiskReport {
    pub(super) mirrors_bytes: Option<u64>,
    pub(super) store_bytes: Option<u64>,
    pub(super) free_bytes: Option<u64>,
}

/// The last report, and the cached descriptions of snapshots.
#[derive(Debug, Default)]
pub(in crate::http) struct Reports {
    pub(super) known: Arc<SnapshotReports>,
    /// Locked while a report is made, so that simultaneous requests wait for one report and share
    /// it.
    pub(super) last: Mutex<Option<(Instant, Arc<Report>)>>,
}

impl Reports {
    /// Returns the newest snapshots of `repo`, the newest first, and the number of all. Blocks.
    pub(in crate::http) fn newest_snapshots(
        &self,
        store: &Store,
        repo: &RepoName,
    ) -> Result<(Vec<SnapshotReport>, usize), StoreError> {
        self.known.newest(store, repo)
    }
}
