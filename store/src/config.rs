//! The `[store]` section of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use cachewfs_base::{ConfigError, DataDir, duration};
use serde::{Deserialize, Serialize};

use super::lease::MAX_TTL;
use super::{NoticePeriod, S3Config};

/// The shortest notice period. A shorter one would leave a publish too little time.
const MIN_NOTICE: Duration = Duration::from_secs(1);
/// The shortest time to live of a lease, other than none.
const MIN_TTL: Duration = Duration::from_secs(1);

/// The `[store]` section: where snapshots are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The directory with segments, manifests and pointers. Several daemons may share it. It may be
    /// on another filesystem than `data_dir`. With a bucket, it has the local copies of one daemon
    /// alone. Default: `store` below `data_dir`.
    pub directory: Option<PathBuf>,
    /// With a bucket: how many bytes the copies on disk may take. Default `107374182400` (100 GiB).
    pub disk_bytes: u64,
    /// With a bucket: how many bytes the copies in memory may take. Default `67108864` (64 MiB).
    pub memory_bytes: u64,
    /// With a bucket: how often garbage is collected; `0s` for never. Default `6h`.
    #[serde(with = "duration")]
    pub collect_interval: Duration,
    /// With a bucket: how long before a deletion it is announced. A publish has a fourth of it to
    /// write a manifest, and a deletion is given up after a fourth. All daemons of a bucket must
    /// have the same value. Default `1min`.
    #[serde(with = "duration")]
    pub delete_notice: Duration,
    /// How long the lease of a daemon that publishes a repository lasts after its last renewal.
    /// Until then other daemons don't publish the repository. Default `30s`. With `0s` there are no
    /// leases: daemons publish at the same time, and the fastest wins.
    #[serde(with = "duration")]
    pub lease_ttl: Duration,
    /// The bucket, if the store isn't a directory.
    pub s3: Option<S3Config>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            directory: None,
            disk_bytes: 100 << 30,
            memory_bytes: 64 << 20,
            collect_interval: Duration::from_hours(6),
            delete_notice: NoticePeriod::default().0,
            lease_ttl: Duration::from_secs(30),
            s3: None,
        }
    }
}

impl StoreConfig {
    /// Refuses values that can't work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, value: Duration, reason| ConfigError::Value {
            key,
            value: format!("{value:?}"),
            reason,
        };
        if self.delete_notice < MIN_NOTICE {
            let (value, reason) = (self.delete_notice, "it must be at least 1s");
            return Err(bad("store.delete_notice", value, reason));
        }
        let ttl = self.lease_ttl;
        // A shorter lease would expire while a request to a bucket is retried.
        if !ttl.is_zero() && !(MIN_TTL..=MAX_TTL).contains(&ttl) {
            return Err(bad(
                "store.lease_ttl",
                ttl,
                "it must be 0s, or between 1s and 1h",
            ));
        }
        let checked = self.s3.as_ref().map_or(Ok(()), S3Config::check);
        checked.map_err(|(key, value, reason)| ConfigError::Value { key, value, reason })
    }

    /// Returns a description of where the authoritative tier is.
    pub fn place(&self, data_dir: &DataDir) -> String {
        match &self.s3 {
            Some(s3) => s3.place(),
            None => self.directories(data_dir).0.display().to_string(),
        }
    }

    /// Returns the directory of the store, and its staging directory.
    pub fn directories(&self, data_dir: &DataDir) -> (PathBuf, PathBuf) {
        match &self.directory {
            Some(directory) => (directory.clone(), directory.join("tmp")),
            None => (data_dir.store(), data_dir.tmp()),
        }
    }
}
