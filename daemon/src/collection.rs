//! Garbage collection of the store: deletes snapshots that are no longer kept, and segments that no
//! manifest names.
//!
//! If the store is a directory, the publisher collects at the end of each publish. If it is a
//! bucket, each daemon looks at each repository periodically, and the first daemon that finds a
//! collection due runs it. An operator can also start one (`cachewfsd collect`).

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
use crate::open_store::open_authoritative_tier;
use crate::repository::backoff;
use crate::store::{Collected, Collection, Store, StoreError};

/// At most this many repositories are collected at the same time. A collection mostly waits.
const MAX_COLLECTIONS: usize = 16;
/// At most how long a daemon waits before it looks again whether a collection is due.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// Collects all repositories of the bucket periodically, until `stop`.
pub(crate) async fn collect_periodically(
    store: Store,
    config: Arc<LiveConfig>,
    stop: CancellationToken,
) {
    let mut changes = config.changes();
    loop {
        let interval = config.now().store.collect_interval;
        // The random part of the backoff spreads the daemons, so that they rarely collide on a
        // collection.
        let pause = backoff::delay(1, interval / 8, LONGEST_WAIT);
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
                warn!(error, "Can't list repositories for garbage collection");
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
        let collections = stream::iter(shelves)
            .map(collect)
            .buffer_unordered(MAX_COLLECTIONS);
        collections.for_each(async |_| {}).await;
    }
}

/// Collects a repository if no daemon has done so within the configured interval.
fn collect(repo: &RepoName, store: &Store, (config, stop): (&LiveConfig, &CancellationToken)) {
    let config = config.now();
    let is_due = || -> Result<bool, StoreError> {
        let Some(at) = store.collected_at(repo)? else {
            return Ok(true);
        };
        // `at` is of the store's clock, and `now` of this machine's. If they differ, collections
        // run too often, or are left to other daemons. Both are safe.
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

/// Logs the work of a collection, if it did any.
pub(crate) fn log(repo: &RepoName, collected: &Collected) {
    let (snapshots, segments) = (collected.snapshots.len(), collected.segments);
    if snapshots > 0 || segments > 0 {
        let bytes = collected.bytes;
        info!(
            %repo, snapshots, segments, bytes,
            "Garbage collection deleted snapshots or segments of {repo}"
        );
    }
    if let Some(first) = collected.missing.first() {
        let missing = collected.missing.len();
        warn!(
            %repo, missing, %first,
            "Segments that snapshots of {repo} name are missing from the store"
        );
    }
}

/// Logs why a collection failed. The publish or the loop that called it goes on.
pub(crate) fn warn_of(repo: &RepoName, error: &StoreError) {
    let error = chain(error);
    warn!(%repo, error, "Garbage collection of {repo} failed");
}

/// The work that a collection of one repository did, or would do.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CollectionReport {
    pub repo: RepoName,
    /// Whether this is about LFS archives rather than snapshots.
    pub lfs: bool,
    /// The snapshots that were deleted.
    pub snapshots: Vec<String>,
    /// How many snapshots are kept.
    pub kept_snapshots: usize,
    /// How many segments were deleted.
    pub segments: usize,
    /// The bytes of the deleted segments.
    pub bytes: u64,
    /// How many segments are kept because a snapshot names them.
    pub kept_segments: usize,
    /// How many segments are kept although no snapshot names them, because they are too young.
    pub young_segments: usize,
    /// Segments that a snapshot names and that are missing from the store: damage.
    pub missing_segments: Vec<String>,
    /// Why the collection failed.
    pub error: Option<String>,
}

/// Collects `repos`, or all repositories if `repos` is empty, and passes each report to `each`.
/// With `is_dry_run`, nothing is deleted.
pub(crate) async fn collect_on_demand(
    config: &Config,
    (repos, is_dry_run): (Vec<RepoName>, bool),
    mut each: impl FnMut(CollectionReport),
) -> Result<(), StartError> {
    let store = open_authoritative_tier(config).await?;
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
    let mut reports = stream::iter(shelves)
        .map(collect)
        .buffer_unordered(MAX_COLLECTIONS);
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
