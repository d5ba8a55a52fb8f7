//! Gathers what the report says about the daemon.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cachewfs_format::{Pointer, RepoName};
use tracing::debug;

use super::report::{
    DiskReport, FailureReport, GitReport, JobReport, JobsReport, Report, RepositoryReport,
    TrafficReport,
};
use super::snapshots::{SnapshotReports, of_pointer};
use crate::base::{chain, map_concurrently, seconds_since_epoch};
use crate::http::app::App;
use crate::http::error::ApiError;
use crate::readiness::Readiness;
use crate::repository::{CurrentJob, MirrorState, Repository};
use crate::store::StoreError;

/// How long a report is reused, so that many open pages cost no more than one.
const MAX_AGE: Duration = Duration::from_secs(1);
/// At most this many repositories are described, those with failures first.
const MAX_REPOSITORIES: usize = 500;
/// At most this many repositories are described at a time.
const MAX_READERS: usize = 16;

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
    let disk = &app.context.disk;
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
    let counts = app.context.metrics.jobs.counts();
    let report = |(class, waiting, running): (crate::metrics::JobClass, i64, i64)| JobsReport {
        class: class.as_str(),
        waiting,
        running,
    };
    counts.into_iter().map(report).collect()
}

fn traffic(app: &App) -> Vec<TrafficReport> {
    let answered = app.context.metrics.requests.answered();
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
    let all = app.repositories().unwrap_or_else(|error| {
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
