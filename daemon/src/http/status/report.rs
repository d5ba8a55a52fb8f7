//! [`Report`]: the report about the daemon. It is the answer of `/api/v1/status`, and the source of
//! the page.

use std::sync::Arc;
use std::time::Instant;

use cachewfs_format::RepoName;
use cachewfs_format::api::{JobClass, RepoOverview, SnapshotStatus};
use serde::Serialize;
use tokio::sync::Mutex;

use super::snapshots::DescribedSnapshots;
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
    pub(super) repositories: Vec<RepoOverview>,
    pub(super) jobs: Vec<JobsReport>,
    /// Requests and bytes sent, by class of route.
    pub(super) traffic: Vec<TrafficReport>,
    /// Reads of the store, by tier.
    pub(super) tiers: Vec<TrafficReport>,
    pub(super) git: GitReport,
    pub(super) disk: DiskReport,
}

/// The number of waiting and running jobs of a class.
#[derive(Debug, Serialize)]
pub(super) struct JobsReport {
    pub(super) class: JobClass,
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
    pub(super) known: Arc<DescribedSnapshots>,
    /// Locked while a report is made, so that simultaneous requests wait for one report and share
    /// it.
    pub(super) last: Mutex<Option<(Instant, Arc<Report>)>>,
}

impl Reports {
    /// Returns the newest snapshots of `repo`, the newest first, and the number of all.
    pub(in crate::http) async fn newest_snapshots(
        &self,
        store: &Store,
        repo: &RepoName,
    ) -> Result<(Vec<SnapshotStatus>, usize), StoreError> {
        self.known.newest(store, repo).await
    }
}
