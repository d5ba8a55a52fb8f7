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
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::base::{Backoff, chain};
use crate::config::LiveConfig;
use crate::store::{
    Collection, MAX_COLLECTIONS, Store, StoreError, log_collected, log_failed_collection,
};

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
        let backoff = Backoff {
            first: interval / 8,
            longest: LONGEST_WAIT,
        };
        let pause = backoff.with_jitter(1);
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = changes.changed() => continue,
            () = tokio::time::sleep(pause), if !interval.is_zero() => {}
        }
        let repos = match store.repositories().await {
            Ok(repos) => repos,
            Err(error) => {
                let error = chain(&error);
                warn!(error, "Can't list repositories for garbage collection");
                continue;
            }
        };
        let shelves = repos
            .into_iter()
            .flat_map(|repo| [(repo.clone(), store.clone()), (repo, store.lfs())]);
        let collect = async |(repo, store): (RepoName, Store)| {
            collect(&repo, &store, (&config, &stop)).await;
        };
        let collections = stream::iter(shelves)
            .map(collect)
            .buffer_unordered(MAX_COLLECTIONS);
        collections.for_each(async |()| {}).await;
    }
}

/// Collects a repository if no daemon has done so within the configured interval.
async fn collect(
    repo: &RepoName,
    store: &Store,
    (config, stop): (&LiveConfig, &CancellationToken),
) {
    let config = config.now();
    let is_due = async || -> Result<bool, StoreError> {
        let Some(at) = store.collected_at(repo).await? else {
            return Ok(true);
        };
        // `at` is of the store's clock, and `now` of this machine's. If they differ, collections
        // run too often, or are left to other daemons. Both are safe.
        let age = SystemTime::now().duration_since(at).unwrap_or_default();
        Ok(age >= config.store.collect_interval)
    };
    let collection = Collection {
        keep: config.keep,
        is_dry_run: false,
        is_stopping: &|| stop.is_cancelled(),
    };
    let collected = async {
        if !is_due().await? || stop.is_cancelled() {
            return Ok(None);
        }
        store.collect(repo, collection).await.map(Some)
    };
    match collected.await {
        Ok(Some(collected)) => log_collected(repo, &collected),
        Ok(None) | Err(StoreError::Collecting | StoreError::Stopping) => {}
        Err(_) if stop.is_cancelled() => {}
        Err(error) => log_failed_collection(repo, &error),
    }
}
