//! Garbage collection that an operator starts: `cachewfsd collect`.

use cachewfs_format::{RepoName, SegmentId};
use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;

use crate::base::chain;
use crate::config::Config;
use crate::open_store::open_authoritative_tier;
use crate::parts::Parts;
use crate::start_error::StartError;
use crate::store::{Collected, Collection, MAX_COLLECTIONS, ShelfKind, Store, StoreError};

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
    (config, parts): (&Config, &Parts),
    (repos, is_dry_run): (Vec<RepoName>, bool),
    mut each: impl FnMut(CollectionReport),
) -> Result<(), StartError> {
    let store = open_authoritative_tier(config, parts).await?;
    let repos = if repos.is_empty() {
        let listed = store.repositories().await;
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
    let keep = config.keep;
    let collect = async |(repo, store): (RepoName, Store)| {
        let collection = Collection {
            keep,
            is_dry_run,
            is_stopping: &|| false,
        };
        let collected = store.collect(&repo, collection).await;
        report((repo, store.kind()), collected)
    };
    let mut reports = stream::iter(shelves)
        .map(collect)
        .buffer_unordered(MAX_COLLECTIONS);
    while let Some(report) = reports.next().await {
        each(report);
    }
    Ok(())
}

fn report(
    (repo, kind): (RepoName, ShelfKind),
    collected: Result<Collected, StoreError>,
) -> CollectionReport {
    let error = collected.as_ref().err().map(|error| chain(error));
    let collected = collected.unwrap_or_default();
    let text = |ids: &[SegmentId]| ids.iter().map(ToString::to_string).collect();
    CollectionReport {
        repo,
        lfs: kind == ShelfKind::Lfs,
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
