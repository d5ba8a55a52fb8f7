//! Gathers what the report says about the daemon.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cachewfs_format::api::{FailureStatus, JobClass, RepoOverview};
use cachewfs_format::{ArchiveKind, Pointer, RepoName};
use futures_util::stream::{self, StreamExt as _};
use tracing::debug;

use super::report::{DiskReport, GitReport, JobsReport, Report, TrafficReport};
use super::snapshots::{DescribedSnapshots, of_pointer};
use crate::base::{chain, seconds_since_epoch};
use crate::http::app::App;
use crate::http::describe::{Audience, Pointers, describe, with_snapshots};
use crate::http::error::{ApiError, store_answer};
use crate::readiness::Readiness;
use crate::repository::Repository;
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
    let report = Arc::new(make(app, &app.status.known).await);
    *last = Some((Instant::now(), Arc::clone(&report)));
    Ok(report)
}

async fn make(app: &App, known: &DescribedSnapshots) -> Report {
    let Repositories {
        overviews,
        total,
        failing,
    } = repositories(app, known).await;
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
        repositories_total: total,
        failing_total: failing,
        repositories: overviews,
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

/// The repositories of a report.
struct Repositories {
    /// At most [`MAX_REPOSITORIES`]: those with failures first, those without a mirror last.
    overviews: Vec<RepoOverview>,
    total: usize,
    failing: usize,
}

/// A repository of a report.
struct Listed {
    name: RepoName,
    /// `None` if the repository is published without a mirror here.
    mirrored: Option<Arc<Repository>>,
    pointer: Result<Option<Pointer>, StoreError>,
}

async fn repositories(app: &App, known: &DescribedSnapshots) -> Repositories {
    let mut mirrored = app.registry.all();
    mirrored.retain(|repository| !repository.status().is_unknown());
    let is_failing = |repository: &Arc<Repository>| repository.status().is_failing();
    let failing = mirrored.iter().filter(|each| is_failing(each)).count();
    // The sort is stable: among failing and among other repositories, the order by name stays.
    mirrored.sort_by_cached_key(|repository| Reverse(is_failing(repository)));
    let elsewhere = elsewhere(app).await;
    let total = mirrored.len() + elsewhere.len();
    mirrored.truncate(MAX_REPOSITORIES);
    let names: Vec<_> = mirrored.iter().map(|each| each.name().clone()).collect();
    let pointers = app.store.recent_pointers(&names).await;
    let mirrored = mirrored.into_iter().zip(pointers);
    let mirrored = mirrored.map(|(repository, pointer)| Listed {
        name: repository.name().clone(),
        mirrored: Some(repository),
        pointer,
    });
    let listed: Vec<_> = mirrored.chain(elsewhere).take(MAX_REPOSITORIES).collect();
    let names: Vec<_> = listed.iter().map(|each| each.name.clone()).collect();
    let lfs = app.store_of(ArchiveKind::Lfs);
    let lfs = lfs.recent_pointers(&names).await;
    let listed: Vec<_> = listed.into_iter().zip(lfs).collect();
    let overview = async |(listed, lfs): &(Listed, Result<Option<Pointer>, StoreError>)| {
        let lfs = lfs.as_ref().ok().and_then(Option::as_ref);
        overview((app, known), listed, lfs).await
    };
    let overviews = stream::iter(&listed).map(overview);
    let overviews: Vec<_> = overviews.buffered(MAX_READERS).collect().await;
    let has_failure = |overview: &&RepoOverview| overview.status.is_failing();
    let failing = failing.max(overviews.iter().filter(has_failure).count());
    Repositories {
        overviews,
        total,
        failing,
    }
}

fn jobs(app: &App) -> Vec<JobsReport> {
    let counts = app.context.metrics.jobs.counts();
    let report = |(class, waiting, running): (JobClass, i64, i64)| JobsReport {
        class,
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
async fn elsewhere(app: &App) -> Vec<Listed> {
    let all = app.repositories().await.unwrap_or_else(|error| {
        debug!(
            error = chain(&error),
            "The status page lacks repositories without a mirror: can't list the store"
        );
        BTreeMap::new()
    });
    let without = all.into_iter().filter(|(_, mirrored)| mirrored.is_none());
    let names: Vec<RepoName> = without.map(|(repo, _)| repo).collect();
    let pointers = app.store.recent_pointers(&names).await;
    let listed = names.into_iter().zip(pointers);
    let listed = listed.map(|(name, pointer)| Listed {
        name,
        mirrored: None,
        pointer,
    });
    listed
        .filter(|it| matches!(it.pointer, Ok(Some(_))))
        .collect()
}

async fn overview(
    (app, known): (&App, &DescribedSnapshots),
    listed: &Listed,
    lfs: Option<&Pointer>,
) -> RepoOverview {
    let (name, mirrored) = (&listed.name, listed.mirrored.as_deref());
    let snapshot = listed.pointer.as_ref().ok().and_then(Option::as_ref);
    let pointers = Pointers { snapshot, lfs };
    let mut status = describe(name, mirrored, pointers, Audience::Operator);
    let newest = match (snapshot, mirrored) {
        (None, _) => Ok((Vec::new(), 0)),
        // Only the current one: to read the manifests of all these repositories would take long.
        (Some(pointer), None) => Ok((of_pointer(pointer).into_iter().collect(), 1)),
        (Some(pointer), Some(_)) => {
            let of = (name, pointer.snapshot);
            known.newest_lately(&app.store, of).await
        }
    };
    // An unreadable repository is shown with its error, and doesn't fail the whole page.
    let unreadable = listed.pointer.as_ref().err().or(newest.as_ref().err());
    if let Some(error) = unreadable {
        status
            .failure
            .get_or_insert_with(|| unreadable_store(error));
    }
    with_snapshots(status, mirrored, newest.unwrap_or_default())
}

/// Describes a failure to read the store, which the next report tries again.
fn unreadable_store(error: &StoreError) -> FailureStatus {
    let now = seconds_since_epoch();
    FailureStatus {
        code: store_answer(error).code.to_owned(),
        message: chain(error),
        since: now,
        tries: 1,
        next_try_at: now,
    }
}
