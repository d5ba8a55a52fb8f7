//! Opening the store: a directory, or a bucket with copies on disk and in memory.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::app::{StartError, sweep};
use crate::config::Config;
use crate::error_chain::chain;
use crate::store::{DiskTier, Limits, S3Error, S3Tier, Store, Tiers};

/// How long a start waits for the bucket before it goes on without.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// What the store does in the background. Dropping this ends it, and all requests to the bucket.
#[derive(Debug)]
pub(crate) struct StoreTasks {
    tasks: TaskTracker,
    stop: DropGuard,
}

impl StoreTasks {
    /// Ends it, and waits until it has.
    pub(crate) async fn stop(self) {
        let Self { tasks, stop } = self;
        drop(stop);
        tasks.close();
        tasks.wait().await;
    }
}

/// Opens the store, in the runtime of the caller.
pub(crate) async fn open_store(config: &Config) -> Result<(Store, StoreTasks), StartError> {
    let (root, tmp) = config.store.directories(&config.data_dir);
    if config.store.s3.is_some() {
        // Nobody else works there: what an earlier run was fetching is of no use.
        sweep(&tmp).map_err(|source| StartError::Prepare {
            path: tmp.clone(),
            source: source.into(),
        })?;
    }
    let disk = DiskTier::create(&root, &tmp).map_err(|source| StartError::Store {
        place: root.display().to_string(),
        source: source.into(),
    })?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let store_tasks = StoreTasks {
        tasks: tasks.clone(),
        stop: stop.clone().drop_guard(),
    };
    let Some(s3) = &config.store.s3 else {
        return Ok((Store::new(disk), store_tasks));
    };
    let failed = |source: S3Error| StartError::Store {
        place: s3.place(),
        source: source.into(),
    };
    let bucket = S3Tier::open(s3, stop.clone()).await.map_err(failed)?;
    let probed = tokio::time::timeout(PROBE_LIMIT, bucket.probe()).await;
    match probed.unwrap_or(Err(S3Error::TimedOut)) {
        Ok(()) => {}
        Err(error) if error.is_lasting() => return Err(failed(error)),
        Err(error) => {
            let (bucket, error) = (s3.place(), chain(&error));
            warn!(
                bucket,
                error, "What is on disk is served without the bucket"
            );
        }
    }
    if !bucket.is_probed() {
        tasks.spawn(bucket.clone().probe_until_it_can_be(stop.clone()));
    }
    let limits = Limits {
        memory: config.store.memory_bytes,
        disk: config.store.disk_bytes,
    };
    let tiers = Tiers::new(Arc::new(bucket), (disk, tmp), limits);
    tiers.start(&tasks, &stop);
    Ok((Store::new(tiers), store_tasks))
}
