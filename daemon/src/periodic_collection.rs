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
        keep: config.keep,
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
        Ok(Some(collected)) => log_collected(repo, &collected),
        Ok(None) | Err(StoreError::Collecting | StoreError::Stopping) => {}
        Err(_) if stop.is_cancelled() => {}
        Err(error) => log_failed_collection(repo, &error),
    }
}
