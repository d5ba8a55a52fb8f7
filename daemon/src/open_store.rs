//! Opens the store: a directory, or a bucket with local copies on disk and in memory.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Access;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::base::{chain, create_private, lock_directory, sweep};

use crate::config::{Config, LiveConfig};
use crate::periodic_collection::collect_periodically;
use crate::start_error::{CheckWarning, StartError};
use crate::store::{DiskTier, NoticePeriod, S3Error, S3Tier, Store, TierLimits, Tiers};

/// How long a start waits for the bucket before the daemon goes on without it.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// The background tasks of the store. Dropping this ends them, and all requests to the bucket.
#[derive(Debug)]
pub(crate) struct StoreTasks {
    tasks: TaskTracker,
    stopped: CancellationToken,
    stop: DropGuard,
    /// The lock on the directory with the local copies.
    lock: Option<File>,
}

impl StoreTasks {
    /// Starts periodic garbage collection, unless each publish ends with a collection anyway.
    pub(crate) fn collect(&self, store: &Store, config: &Arc<LiveConfig>) {
        if !store.collects_without_waiting() {
            let (store, config) = (store.clone(), Arc::clone(config));
            let collect = collect_periodically(store, config, self.stopped.clone());
            self.tasks.spawn(collect);
        }
    }

    /// Stops the tasks and waits until they have ended.
    pub(crate) async fn stop(self) {
        let Self {
            tasks, stop, lock, ..
        } = self;
        drop(stop);
        tasks.close();
        tasks.wait().await;
        drop(lock);
    }
}

/// Opens the authoritative tier alone, without local copies, so that a command can work beside a
/// running daemon. Uses the runtime of the caller.
pub(crate) async fn open_authoritative_tier(config: &Config) -> Result<Store, StartError> {
    let Some(s3) = &config.store.s3 else {
        return Ok(Store::new(open_directory(config)?.0));
    };
    let notice = NoticePeriod(config.store.delete_notice);
    let open = async {
        let bucket = S3Tier::open(s3, notice, CancellationToken::new()).await?;
        bucket.probe().await?;
        Ok(Store::new(bucket).with_notice(notice))
    };
    open.await.map_err(failed(config))
}

/// Returns the tier of the store's directory, and its directory for staging.
fn open_directory(config: &Config) -> Result<(DiskTier, PathBuf), StartError> {
    let (root, tmp) = config.store.directories(&config.data_dir);
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| StartError::Store {
        place: root.display().to_string(),
        source,
    };
    create_private(&root).map_err(|error| failed(error.into()))?;
    let disk = DiskTier::create(&root, &tmp).map_err(|error| failed(error.into()))?;
    Ok((disk, tmp))
}

fn failed(config: &Config) -> impl Fn(S3Error) -> StartError {
    |source| StartError::Store {
        place: config.store.place(&config.data_dir),
        source: source.into(),
    }
}

/// Opens the store in the runtime of the caller.
pub(crate) async fn open_store(config: &Config) -> Result<(Store, StoreTasks), StartError> {
    let (root, tmp) = config.store.directories(&config.data_dir);
    let mut lock = None;
    if config.store.s3.is_some() {
        // Two daemons would evict each other's copies and remove each other's temporary files.
        lock = Some(lock_directory(&root).await?);
        // The lock makes this daemon the only user, so files that an earlier run was fetching are
        // garbage.
        sweep(&tmp).map_err(|source| StartError::Prepare {
            path: tmp.clone(),
            source: source.into(),
        })?;
    }
    let (disk, tmp) = open_directory(config)?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let store_tasks = StoreTasks {
        tasks: tasks.clone(),
        stopped: stop.clone(),
        stop: stop.clone().drop_guard(),
        lock,
    };
    let Some(s3) = &config.store.s3 else {
        return Ok((Store::new(disk), store_tasks));
    };
    let notice = NoticePeriod(config.store.delete_notice);
    let failed = failed(config);
    let bucket = S3Tier::open(s3, notice, stop.clone())
        .await
        .map_err(&failed)?;
    let probed = tokio::time::timeout(PROBE_LIMIT, bucket.probe()).await;
    // A lasting error needs a person, so the start fails. In an outage the daemon serves its local
    // copies until the bucket answers.
    match probed.unwrap_or(Err(S3Error::TimedOut)) {
        Ok(()) => {}
        Err(error) if error.is_lasting() => return Err(failed(error)),
        Err(error) => {
            let (bucket, error) = (s3.place(), chain(&error));
            warn!(
                bucket,
                error, "The bucket can't be used yet: the daemon serves the local copies"
            );
        }
    }
    if !bucket.is_probed() {
        tasks.spawn(bucket.clone().probe_until_usable(stop.clone()));
    }
    let limits = TierLimits {
        memory: config.store.memory_bytes,
        disk: config.store.disk_bytes,
    };
    let tiers = Tiers::new(Arc::new(bucket), (disk, tmp), limits).with_notice(notice);
    tiers.start(&tasks, &stop);
    Ok((Store::new(tiers).with_notice(notice), store_tasks))
}

/// Checks the files that `[store]` names.
///
/// Fails if no start can succeed on any machine. Returns warnings for problems that may not exist
/// on the machine, or for the user, that the daemon will run on.
pub(crate) fn check_store(config: &Config) -> Result<Vec<CheckWarning>, StartError> {
    let mut warnings = Vec::new();
    let (root, _) = config.store.directories(&config.data_dir);
    let failed = |source: std::io::Error| StartError::Store {
        place: root.display().to_string(),
        source: source.into(),
    };
    match std::fs::metadata(&root) {
        Ok(metadata) if !metadata.is_dir() => {
            return Err(failed(std::io::ErrorKind::NotADirectory.into()));
        }
        Ok(_) => {
            let may_write = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
            if let Err(error) = rustix::fs::access(&root, may_write) {
                warnings.push(failed(error.into()).into());
            }
        }
        // The daemon creates the directory.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => warnings.push(failed(error).into()),
    }
    if let Some(s3) = &config.store.s3 {
        let failed = |source: S3Error| StartError::Store {
            place: s3.place(),
            source: source.into(),
        };
        s3.certificates().map_err(failed)?;
        if let Err(error) = s3.check_credentials() {
            warnings.push(failed(error).into());
        }
    }
    Ok(warnings)
}
