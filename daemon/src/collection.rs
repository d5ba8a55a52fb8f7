//! Deleting what no snapshot needs any more: from a bucket now and then, where each daemon looks and the first
//! one does it; and by order of an operator.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cachewfs_format::RepoName;
use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::app::StartError;
use crate::config::{Config, LiveConfig};
use crate::error_chain::chain;
use crate::open_store::open_authority;
use crate::repository::backoff;
use crate::store::{Collected, Collection, Store, StoreError};

/// Of so many repositories something is deleted at once: it is mostly waiting.
const AT_ONCE: usize = 16;
/// It is looked at least this often whether there is something to do.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// Collects until `stop`.
pub(crate) async fn collect_now_and_then(
    store: Store,
    config: Arc<LiveConfig>,
    stop: CancellationToken,
) {
    let mut changes = config.changes();
    loop {
        let interval = config.now().store.collect_interval;
        let pause = backoff::pause(1, interval / 8, LONGEST_PAUSE);
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = changes.changed() => continue,
            () = tokio::time::sleep(pause), if !interval.is_zero() => {}
        }
        let listing = store.clone();
        let listed = tokio::task::spawn_blocking(move || listing.repositories()).await;
        let repos = match listed {
            Ok(Ok(repos)) => repos,
            Ok(Err(error)) => {
                let error = chain(&error);
                warn!(
                    error,
                    "What is in the store can't be listed to delete what nothing needs"
                );
                continue;
            }
            Err(_) => return,
        };
        let shelves = repos
            .into_iter()
            .flat_map(|repo| [(repo.clone(), store.clone()), (repo, store.lfs())]);
        let collect = |(repo, store)| {
            let (config, stop) = (Arc::clone(&config), stop.clone());
            tokio::task::spawn_blocking(move || collect(&repo, &store, (&config, &stop)))
        };
        let collections = stream::iter(shelves).map(collect).buffer_unordered(AT_ONCE);
        collections.for_each(async |_| {}).await;
    }
}

/// Collects unless that was done lately.
fn collect(repo: &RepoName, store: &Store, (config, stop): (&LiveConfig, &CancellationToken)) {
    let config = config.now();
    let is_due = || -> Result<bool, StoreError> {
        let Some(at) = store.collected_at(repo)? else {
            return Ok(true);
        };
        // Another clock than that of the store: if it is wrong, this is done too often, or by others.
        let age = SystemTime::now().duration_since(at).unwrap_or_default();
        Ok(age >= config.store.collect_interval)
    };
    let collection = Collection {
        keep: config.keep(),
        is_dry_run: false,
        is_stopping: &|| stop.is_cancelled(),
    };
    let collected = is_due().and_then(|is_due| {
        let collect = || store.collect(repo, collection).map(Some);
        if is_due && !stop.is_cancelled() {
            collect()
        } else {
            Ok(None)
        }
    });
    match collected {
        Ok(Some(collected)) => log(repo, &collected),
        Ok(None) | Err(StoreError::Collecting | StoreError::Stopping) => {}
        Err(_) if stop.is_cancelled() => {}
        Err(error) => warn_of(repo, &error),
    }
}

/// Says what a collection did, if it did something.
pub(crate) fn log(repo: &RepoName, collected: &Collected) {
    let (snapshots, segments) = (collected.snapshots.len(), collected.segments);
    if snapshots > 0 || segments > 0 {
        let bytes = collected.bytes;
        info!(%repo, snapshots, segments, bytes, "Deleted what no snapshot of {repo} needs any more");
    }
    if let Some(first) = collected.missing.first() {
        let missing = collected.missing.len();
        warn!(%repo, missing, %first, "Segments that snapshots of {repo} name are not in the store");
    }
}

/// Says that nothing could be deleted, which is no failure of what goes on.
pub(crate) fn warn_of(repo: &RepoName, error: &StoreError) {
    let error = chain(error);
    warn!(%repo, error, "What {repo} doesn't need any more can't be deleted");
}

/// What a collection of one repository did, or would do.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CollectionReport {
    /// The repository.
    pub repo: RepoName,
    /// Whether it is about its LFS archives, and not its snapshots.
    pub lfs: bool,
    /// Snapshots that went, and how many stay.
    pub snapshots: Vec<String>,
    /// How many snapshots stay.
    pub kept_snapshots: usize,
    /// Segments that went.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Segments that stay because a snapshot names them.
    pub kept_segments: usize,
    /// Segments that no snapshot names, and that stay because they are too young.
    pub young_segments: usize,
    /// Segments that a snapshot names and that aren't there: damage.
    pub missing_segments: Vec<String>,
    /// Why it came to no end.
    pub error: Option<String>,
}

/// Deletes what no snapshot of `repos`, or of all repositories if there are none, needs any more, and tells
/// `each` of one after the other; with `is_dry_run` it only tells.
pub(crate) async fn collect_by_order(
    config: &Config,
    (repos, is_dry_run): (Vec<RepoName>, bool),
    mut each: impl FnMut(CollectionReport),
) -> Result<(), StartError> {
    let store = open_authority(config).await?;
    let listing = store.clone();
    let repos = if repos.is_empty() {
        let listed = tokio::task::spawn_blocking(move || listing.repositories()).await;
        let listed = listed.unwrap_or(Err(StoreError::Stopping));
        listed.map_err(|source| StartError::Store {
            place: config.store.place(&config.data_dir),
            source: source.into(),
        })?
    } else {
        repos
    };
    let shelves = repos
        .into_iter()
        .flat_map(|repo| [(repo.clone(), store.clone()), (repo, store.lfs())]);
    let keep = config.keep();
    let collect = |(repo, store): (RepoName, Store)| {
        tokio::task::spawn_blocking(move || {
            let collection = Collection {
                keep,
                is_dry_run,
                is_stopping: &|| false,
            };
            let collected = store.collect(&repo, collection);
            report(repo, store.is_lfs(), collected)
        })
    };
    let mut reports = stream::iter(shelves).map(collect).buffer_unordered(AT_ONCE);
    while let Some(report) = reports.next().await {
        if let Ok(report) = report {
            each(report);
        }
    }
    Ok(())
}

fn report(repo: RepoName, lfs: bool, collected: Result<Collected, StoreError>) -> CollectionReport {
    let error = collected.as_ref().err().map(|error| chain(error));
    let collected = collected.unwrap_or_default();
    let text = |ids: &[cachewfs_format::SegmentId]| ids.iter().map(ToString::to_string).collect();
    CollectionReport {
        repo,
        lfs,
        snapshots: collected
            .snapshots
            .iter()
            .map(ToString::to_string)
            .collect(),
        kept_snapshots: collected.kept_snapshots,
        segments: collected.segments,
        bytes: collected.bytes,
        kept_segments: collected.kept_segments,
        young_segments: collected.young_segments,
        missing_segments: text(&collected.missing),
        error,
    }
}
