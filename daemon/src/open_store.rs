//! Opens the store: a directory, or a bucket with local copies on disk and in memory.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use cachewfs_store::{BucketOptions, BucketProblem, BucketTier};
use rustix::fs::Access;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::base::{ConfigError, create_private, lock_directory, sweep};
use crate::config::{Config, LiveConfig};
use crate::parts::Parts;
use crate::periodic_collection::collect_periodically;
use crate::start_error::{CheckWarning, StartError};
use crate::store::{Copies, CopyLimits, DiskTier, NoticePeriod, S3Config, Store};

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
pub(crate) async fn open_authoritative_tier(
    config: &Config,
    parts: &Parts,
) -> Result<Store, StartError> {
    let Some(s3) = &config.store.s3 else {
        return Ok(Store::new(open_directory(config)?.0));
    };
    let options = BucketOptions {
        notice: NoticePeriod(config.store.delete_notice),
        stop: CancellationToken::new(),
        outlast_outage: None,
    };
    let notice = options.notice;
    let bucket = open_bucket(s3, parts, options).await?;
    Ok(Store::new(bucket).with_notice(notice))
}

/// Opens the bucket with the part of the program.
async fn open_bucket(
    config: &S3Config,
    parts: &Parts,
    options: BucketOptions,
) -> Result<BucketTier, StartError> {
    let Some(bucket) = &parts.bucket else {
        let key = "[store.s3]";
        return Err(ConfigError::Unsupported { key }.into());
    };
    bucket.open(config, options).await.map_err(failed(config))
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

fn failed(config: &S3Config) -> impl Fn(BucketProblem) -> StartError {
    |source| StartError::Store {
        place: config.place(),
        source,
    }
}

/// Opens the store in the runtime of the caller.
pub(crate) async fn open_store(
    config: &Config,
    parts: &Parts,
) -> Result<(Store, StoreTasks), StartError> {
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
    let options = BucketOptions {
        notice: NoticePeriod(config.store.delete_notice),
        stop: stop.clone(),
        outlast_outage: Some(tasks.clone()),
    };
    let notice = options.notice;
    let bucket = open_bucket(s3, parts, options).await?;
    let limits = CopyLimits {
        memory: config.store.memory_bytes,
        disk: config.store.disk_bytes,
    };
    let copies = Copies::new(bucket, (disk, tmp), limits).with_notice(notice);
    copies.start(&tasks, &stop);
    Ok((Store::new(copies).with_notice(notice), store_tasks))
}

/// Checks the files that `[store]` names.
///
/// Fails if no start can succeed on any machine. Returns warnings for problems that may not exist
/// on the machine, or for the user, that the daemon will run on.
pub(crate) fn check_store(config: &Config, parts: &Parts) -> Result<Vec<CheckWarning>, StartError> {
    let mut warnings = Vec::new();
    let (root, _) = config.store.directories(&config.data_dir);
    let unusable = |source: std::io::Error| StartError::Store {
        place: root.display().to_string(),
        source: source.into(),
    };
    match std::fs::metadata(&root) {
        Ok(metadata) if !metadata.is_dir() => {
            return Err(unusable(std::io::ErrorKind::NotADirectory.into()));
        }
        Ok(_) => {
            let may_write = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
            if let Err(error) = rustix::fs::access(&root, may_write) {
                warnings.push(unusable(error.into()).into());
            }
        }
        // The daemon creates the directory.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => warnings.push(unusable(error).into()),
    }
    if let (Some(s3), Some(bucket)) = (&config.store.s3, &parts.bucket) {
        let problem = bucket.check(s3).map_err(failed(s3))?;
        warnings.extend(problem.map(failed(s3)).map(Into::into));
    }
    Ok(warnings)
}
