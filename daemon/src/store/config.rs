//! The `[store]` section of the configuration: where what is published is kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lease::MAX_TTL;
use super::{Notice, S3Config};
use crate::config::{ConfigError, duration};

/// A shorter notice would leave a publish too little time.
const MIN_NOTICE: Duration = Duration::from_secs(1);
/// The shortest lease but none.
const MIN_TTL: Duration = Duration::from_secs(1);

/// The `[store]` section: where what is published is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Where segments, manifests and pointers are. Several daemons may have the same directory; it may
    /// be on another filesystem than `data_dir`. With a bucket, copies are there, of one daemon alone.
    /// Default: `store` below `data_dir`.
    pub directory: Option<PathBuf>,
    /// With a bucket: how much the copies on disk may take, in bytes. Default `107374182400` (100 GiB).
    pub disk_bytes: u64,
    /// With a bucket: how much the copies in memory may take, in bytes. Default `67108864` (64 MiB).
    pub memory_bytes: u64,
    /// With a bucket: how often what no snapshot needs any more is deleted; `0s` for never. Default `6h`.
    #[serde(with = "duration")]
    pub collect_interval: Duration,
    /// With a bucket: how long it is announced what is to be deleted before it is; a publish has a fourth of it
    /// to write a manifest, and a deletion is given up after as long. The same for all daemons of a bucket.
    /// Default `1min`.
    #[serde(with = "duration")]
    pub delete_notice: Duration,
    /// How long after its last sign of life a daemon that publishes a repository keeps the others from
    /// doing the same. Default `30s`; `0s`: they do the same, and the fastest wins.
    #[serde(with = "duration")]
    pub lease_ttl: Duration,
    /// The bucket that has everything, if it isn't the directory.
    pub s3: Option<S3Config>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            directory: None,
            disk_bytes: 100 << 30,
            memory_bytes: 64 << 20,
            collect_interval: Duration::from_hours(6),
            delete_notice: Notice::default().0,
            lease_ttl: Duration::from_secs(30),
            s3: None,
        }
    }
}

impl StoreConfig {
    /// Refuses values that can't work.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, value: Duration, reason| ConfigError::Value {
            key,
            value: format!("{value:?}"),
            reason,
        };
        if self.delete_notice < MIN_NOTICE {
            let (value, reason) = (self.delete_notice, "must be 1s at least");
            return Err(bad("store.delete_notice", value, reason));
        }
        let ttl = self.lease_ttl;
        // One that is shorter ends while a request to a bucket is tried again.
        if !ttl.is_zero() && !(MIN_TTL..=MAX_TTL).contains(&ttl) {
            return Err(bad(
                "store.lease_ttl",
                ttl,
                "it must be 0s, or from 1s to 1h",
            ));
        }
        let checked = self.s3.as_ref().map_or(Ok(()), S3Config::check);
        checked.map_err(|(key, value, reason)| ConfigError::Value { key, value, reason })
    }

    /// Where what counts is, for people.
    pub(crate) fn place(&self, data_dir: &Path) -> String {
        match &self.s3 {
            Some(s3) => s3.place(),
            None => self.directories(data_dir).0.display().to_string(),
        }
    }

    /// Where the store is, and where its files are until they are whole.
    pub(crate) fn directories(&self, data_dir: &Path) -> (PathBuf, PathBuf) {
        match &self.directory {
            Some(directory) => (directory.clone(), directory.join("tmp")),
            None => (data_dir.join("store"), data_dir.join("tmp")),
        }
    }
}
