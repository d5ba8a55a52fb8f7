//! The report about the daemon: the answer of `/api/v1/status`, and the source of the page.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cachewfs_format::{Pointer, RepoName};
use serde::Serialize;
use tokio::sync::Mutex;
use tracing::debug;

use super::snapshots::{SnapshotReport, SnapshotReports, of_pointer};
use crate::base::{chain, map_concurrently, seconds_since_epoch};
use crate::http::error::ApiError;
use crate::http::repos;
use crate::http::routes::App;
use crate::readiness::Readiness;
use crate::repository::{CurrentJob, MirrorState, Repository};
use crate::store::{Store, StoreError};

/// How long a report is reused, so that many open pages cost no more than one.
const MAX_AGE: Duration = Duration::from_secs(1);
/// At most this many repositories are described, those with failures first.
const MAX_REPOSITORIES: usize = 500;
/// At most this many repositories are described at a time.
const MAX_READERS: usize = 16;

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
    known: Arc<SnapshotReports>,
    /// Locked while a report is made, so that simultaneous requests wait for one report and share
    /// it.
    last: Mutex<Option<(Instant, Arc<Report>)>>,
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

/// Returns a report that is at most [`MAX_AGE`] old.
pub(super) async fn current(app: &Arc<App>) -> Result<Arc<Report>, ApiError> {
    let mut last = app.status.last.lock().await;
    if let Some((made, report)) = &*last
        && made.elapsed() < MAX_AGE
    {
        return Ok(Arc::clone(report));
    }
    let (app, known) = (Arc::clone(app), Arc::clone(&app.status.known));
    let make = move || Arc::new(make(&app, &known));
    let report = tokio::task::spawn_blocking(make).await?;
    *last = Some((Instant::now(), Arc::clone(&report)));
    Ok(report)
}

fn make(app: &App, known: &SnapshotReports) -> Report {
    let mut repositories = app.registry.all();
    repositories.retain(|repository| !repository.status().is_unknown());
    let repositories_total = repositories.len();
    let is_failing = |repository: &Arc<Repository>| repository.status().is_failing();
    let failing = repositories.iter().filter(|each| is_failing(each)).count();
    // The sort is stable: among failing and among other repositories, the order by name stays.
    repositories.sort_by_cached_key(|repository| Reverse(is_failing(repository)));
    repositories.truncate(MAX_REPOSITORIES);
    let names: Vec<_> = repositories
        .iter()
        .map(|repository| repository.name().clone())
        .collect();
    let pointers = app.store.recent_pointers(&names);
    let with_pointers: Vec<_> = repositories.into_iter().zip(pointers).collect();
    let mut repositories =
        map_concurrently(&with_pointers, MAX_READERS, |(repository, pointer)| {
            describe((app, known), repository, pointer.as_ref())
        });
    let elsewhere = elsewhere(app);
    let repositories_total = repositories_total + elsewhere.len();
    repositories.extend(
        elsewhere
            .into_iter()
            .take(MAX_REPOSITORIES - repositories.len()),
    );
    let has_failure = |described: &&RepositoryReport| {
        described.failure.is_some() || described.lfs_failure.is_some()
    };
    let failing_total = failing.max(repositories.iter().filter(has_failure).count());
    let disk = app.registry.disk();
    let used = disk.used();
    Report {
        version: env!("CARGO_PKG_VERSION"),
        now: seconds_since_epoch(),
        uptime_seconds: app.began.elapsed().as_secs(),
        readiness: match app.lifecycle.readiness() {
            Readiness::Starting => "starting",
            Readiness::Ready => "ready",
            Readiness::Stopping => "stopping",
        },
        repositories_total,
        failing_total,
        repositories,
        jobs: jobs(app),
        traffic: traffic(app),
        tiers: tiers(app),
        git: git(app),
        disk: DiskReport {
            mirrors_bytes: used.map(|used| used.mirrors),
            store_bytes: used.map(|used| used.store),
            free_bytes: disk.free(),
        },
    }
}

fn jobs(app: &App) -> Vec<JobsReport> {
    let counts = app.registry.metrics().jobs.counts();
    let report = |(class, waiting, running): (crate::metrics::JobClass, i64, i64)| JobsReport {
        class: class.as_str(),
        waiting,
        running,
    };
    counts.into_iter().map(report).collect()
}

fn traffic(app: &App) -> Vec<TrafficReport> {
    let answered = app.registry.metrics().requests.answered();
    let report = |of: crate::metrics::Answered| TrafficReport {
        name: of.class,
        requests: of.requests,
        bytes: of.bytes,
    };
    answered.into_iter().map(report).collect()
}

/// Returns the reads of the disk tier, and of each other tier that had any.
fn tiers(app: &App) -> Vec<TrafficReport> {
    let reads = app.store.reads();
    let report = |(name, reads): (&'static str, &crate::store::TierReads)| TrafficReport {
        name,
        requests: reads.count.value(),
        bytes: reads.bytes.value(),
    };
    let mut tiers: Vec<_> = reads.all().into_iter().map(report).collect();
    tiers.retain(|tier| tier.name == "disk" || tier.requests > 0);
    tiers
}

fn git(app: &App) -> GitReport {
    let counters = &app.git.counters;
    GitReport {
        mirror: counters.from_mirror.load(Ordering::Relaxed),
        passed_on: counters.passed_on.load(Ordering::Relaxed),
        shared: counters.shared.load(Ordering::Relaxed),
        stale: counters.stale.load(Ordering::Relaxed),
    }
}

/// Returns the repositories that are published without a mirror here. Unreadable ones are left out.
fn elsewhere(app: &App) -> Vec<RepositoryReport> {
    let all = repos::all(app).unwrap_or_else(|error| {
        debug!(
            error = chain(&error),
            "The status page lacks repositories without a mirror: can't list the store"
        );
        BTreeMap::new()
    });
    let without = all.into_iter().filter(|(_, mirrored)| mirrored.is_none());
    let names: Vec<RepoName> = without.map(|(repo, _)| repo).collect();
    let pointers = app.store.recent_pointers(&names).into_iter();
    let described = names
        .into_iter()
        .zip(pointers)
        .filter_map(|(repo, pointer)| {
            let pointer = pointer.ok()??;
            Some(RepositoryReport {
                repo,
                has_mirror: false,
                state: MirrorState::Empty.as_str(),
                lag_seconds: None,
                job: None,
                failure: None,
                notice: pointer.notice.clone(),
                is_lfs_running: false,
                lfs_failure: None,
                snapshots: vec![of_pointer(&pointer)?],
                snapshots_total: 1,
            })
        });
    described.collect()
}

fn describe(
    (app, known): (&App, &SnapshotReports),
    repository: &Repository,
    pointer: Result<&Option<Pointer>, &StoreError>,
) -> RepositoryReport {
    let (repo, status) = (repository.name(), repository.status());
    let job = |doing: &CurrentJob| JobReport {
        class: doing.class.as_str(),
        is_running: doing.is_running,
        since_seconds: doing.since.elapsed().as_secs(),
        waits_for: doing.waits_for.as_deref().map(str::to_owned),
    };
    let known_failure = status.failure.as_ref();
    let next_try = known_failure.map(|failure| {
        let next_try = failure.next_try.saturating_duration_since(Instant::now());
        next_try.as_secs()
    });
    let failed = |error: &dyn std::error::Error| FailureReport {
        error: chain(error),
        failures: known_failure.map_or(1, |failure| failure.tries.max(1)),
        next_try_seconds: next_try.unwrap_or(0),
    };
    let mut failure = known_failure.map(|failure| failed(&failure.error));
    // An unreadable repository is shown with its error, and doesn't fail the whole page.
    let mut newest = (Vec::new(), 0);
    let notice = pointer.ok().and_then(Option::as_ref);
    let notice = notice.and_then(|pointer| pointer.notice.clone());
    match pointer {
        Ok(None) => {}
        Ok(Some(pointer)) => match known.newest_lately(&app.store, (repo, pointer.snapshot)) {
            Ok(known) => newest = known,
            Err(error) => {
                failure.get_or_insert_with(|| failed(&error));
            }
        },
        Err(error) => {
            failure.get_or_insert_with(|| failed(error));
        }
    }
    let (snapshots, snapshots_total) = newest;
    let lfs = repository.lfs();
    let lfs_failure = lfs.failure.as_ref().map(|failure| FailureReport {
        error: chain(&*failure.error),
        failures: failure.tries.max(1),
        next_try_seconds: failure.next_try_in().as_secs(),
    });
    RepositoryReport {
        repo: repo.clone(),
        has_mirror: true,
        state: status.state.as_str(),
        lag_seconds: repository.lag().map(|lag| lag.as_secs()),
        job: status.current_job.as_ref().map(job),
        failure,
        notice,
        is_lfs_running: lfs.is_running,
        lfs_failure,
        snapshots,
        snapshots_total,
    }
}
