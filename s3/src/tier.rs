//! [`S3Tier`]: the objects of a bucket.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use cachewfs_base::chain;
use cachewfs_format::limits::MAX_MANIFEST_LEN;
use cachewfs_format::{RepoName, SegmentId};
use cachewfs_store::{
    BucketTier, DirectUrl, Extent, Key, Listed, NewSegment, NoticePeriod, Objects, Shelf,
    ShelfPart, SignUrl, Stat, TierError, Version, Whole, Written,
};
use futures_util::future::{BoxFuture, try_join_all};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::bucket::WriteCondition;
use super::direct::Signer;
use super::upload::UploadPermits;
use super::{Bucket, S3Config, S3Error, probe};

/// The length of one request. Longer reads are split into requests that run at the same time.
const READ_LEN: usize = 4 << 20;
/// At most this many objects are deleted at the same time.
const MAX_DELETES: usize = 16;
/// At most this many segments are stored at the same time.
const MAX_UPLOADS: usize = 16;

/// A tier in a bucket.
#[derive(Clone, Debug)]
pub(crate) struct S3Tier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bucket: Bucket,
    stop: CancellationToken,
    /// Whether the bucket is known to honour preconditions. Nothing is written before.
    is_probed: AtomicBool,
    upload_permits: UploadPermits,
    /// How long a write of a small object may take with all its retries, and a deletion.
    write_limit: Duration,
    /// Damaged segments. They count as missing until they are written over.
    damaged: Mutex<HashSet<Key>>,
    signer: Option<Signer>,
}

impl S3Tier {
    /// Opens a tier. Requests end at `stop`. Writes fail until the
    /// bucket has been probed.
    pub(crate) async fn open(
        config: &S3Config,
        notice: NoticePeriod,
        stop: CancellationToken,
    ) -> Result<Self, S3Error> {
        let bucket = Bucket::open(config).await?;
        Ok(Self(Arc::new(Inner {
            signer: Signer::new(config, &bucket),
            bucket,
            stop,
            is_probed: AtomicBool::new(false),
            upload_permits: UploadPermits::default(),
            write_limit: notice.write_limit(),
            damaged: Mutex::default(),
        })))
    }

    /// Returns whether the bucket is known to honour preconditions.
    pub(crate) fn is_probed(&self) -> bool {
        self.0.is_probed.load(Ordering::Relaxed)
    }

    /// Checks that the bucket honours preconditions.
    pub(crate) async fn probe(&self) -> Result<(), S3Error> {
        // Boxed, because futures of the SDK are large.
        Box::pin(self.until_stop(self.0.bucket.probe())).await?;
        self.0.is_probed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Probes the bucket until it can be used, or the daemon stops.
    pub(crate) async fn probe_until_usable(self, stop: CancellationToken) {
        let mut said = String::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(probe::RETRY_INTERVAL) => {}
            }
            match self.probe().await {
                Ok(()) => {
                    tracing::info!(
                        bucket = self.0.bucket.place,
                        "The bucket of the store can be used"
                    );
                    return;
                }
                Err(error) => {
                    let error = chain(&error);
                    if error != said {
                        let bucket = &self.0.bucket.place;
                        tracing::error!(bucket, error, "The bucket of the store can't be used");
                        said = error;
                    }
                }
            }
        }
    }

    /// Runs `work` to its end, or until the daemon stops.
    async fn until_stop<T>(
        &self,
        work: impl Future<Output = Result<T, S3Error>>,
    ) -> Result<T, S3Error> {
        tokio::select! {
            // The stop is looked at first, so that no request is sent after it.
            biased;
            () = self.0.stop.cancelled() => Err(S3Error::Stopping),
            outcome = work => outcome,
        }
    }

    fn check_probed(&self) -> Result<(), S3Error> {
        self.is_probed().then_some(()).ok_or(S3Error::NotProbed)
    }

    async fn write(
        &self,
        key: &Key,
        bytes: &[u8],
        condition: WriteCondition<'_>,
    ) -> Result<Written, TierError> {
        let bytes = Bytes::copy_from_slice(bytes);
        // Boxed, because futures of the SDK are large.
        let write = Box::pin(async {
            self.check_probed()?;
            let name = key.to_string();
            let write = self.0.bucket.write(&name, bytes, condition);
            // The collector relies on this limit: after it, a write has happened or never will. See
            // `clock`.
            let written = tokio::time::timeout(self.0.write_limit, write).await;
            written.unwrap_or(Err(S3Error::TimedOut))
        });
        match self.until_stop(write).await {
            Ok(()) => Ok(Written::New),
            Err(S3Error::Precondition) => Ok(Written::TooLate),
            Err(error) => Err(failed(key, error)),
        }
    }

    /// Stores a segment unless it exists. Returns the number of new bytes.
    async fn store(&self, key: &Key, segment: &NewSegment) -> Result<u64, S3Error> {
        // A damaged segment exists, so only an unconditional write replaces it.
        let is_damaged = self.0.damaged.lock().contains(key);
        let condition = if is_damaged {
            WriteCondition::None
        } else {
            WriteCondition::Absent
        };
        let file = (segment.file.as_path(), segment.len);
        let name = key.to_string();
        let how = (condition, &self.0.upload_permits);
        match self.0.bucket.upload(&name, file, how).await {
            Ok(()) => {
                self.0.damaged.lock().remove(key);
                Ok(segment.len)
            }
            Err(S3Error::Precondition) => Ok(0),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Objects for S3Tier {
    async fn read_at(&self, key: &Key, offset: u64, into: &mut [u8]) -> Result<(), TierError> {
        let name = key.to_string();
        let parts = into.chunks_mut(READ_LEN).enumerate();
        let reads = parts.map(|(index, part)| {
            let offset = offset + (index * READ_LEN) as u64;
            self.0.bucket.read(&name, offset, part)
        });
        let read = self.until_stop(try_join_all(reads)).await;
        read.map(drop).map_err(|error| failed(key, error))
    }

    async fn read_whole(&self, key: &Key) -> Result<Option<Whole>, TierError> {
        let (name, read_at) = (key.to_string(), Instant::now());
        let read = self.0.bucket.read_whole(&name, MAX_MANIFEST_LEN.into());
        match self.until_stop(read).await {
            Ok((bytes, etag)) => Ok(Some(Whole {
                bytes,
                version: Version::new(etag),
                read_at,
            })),
            Err(S3Error::NoObject) => Ok(None),
            Err(error) => Err(failed(key, error)),
        }
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Written, TierError> {
        self.write(key, bytes, WriteCondition::Absent).await
    }

    async fn create_segments(
        &self,
        shelf: &Shelf,
        segments: Vec<NewSegment>,
    ) -> Result<u64, TierError> {
        let new_bytes = AtomicU64::new(0);
        // The segment that an error belongs to.
        let failed_at = OnceLock::new();
        let store = async |segment: NewSegment| {
            let key = Key::segment(shelf, segment.id);
            let stored = self.store(&key, &segment).await.inspect_err(|_| {
                failed_at.get_or_init(|| key);
            })?;
            new_bytes.fetch_add(stored, Ordering::Relaxed);
            Ok(())
        };
        // Without the write limit: a publish protects its segments only after they are stored, so
        // an upload may take any time.
        let stored = async {
            self.check_probed()?;
            let stored = stream::iter(segments).map(store);
            stored.buffer_unordered(MAX_UPLOADS).try_collect().await
        };
        let () = self.until_stop(stored).await.map_err(|error| {
            let key = failed_at.into_inner();
            failed(&key.unwrap_or_else(|| Key::pointer(shelf)), error)
        })?;
        Ok(new_bytes.into_inner())
    }

    async fn swap(
        &self,
        key: &Key,
        expected: Option<&Version>,
        bytes: &[u8],
    ) -> Result<Written, TierError> {
        let condition = match expected {
            Some(version) => WriteCondition::Is(version.as_str()),
            None => WriteCondition::Absent,
        };
        self.write(key, bytes, condition).await
    }

    async fn stat(&self, key: &Key) -> Result<Option<Stat>, TierError> {
        if self.0.damaged.lock().contains(key) {
            return Ok(None);
        }
        let name = key.to_string();
        match self.until_stop(self.0.bucket.head(&name)).await {
            Ok((len, stored_at)) => Ok(Some(Stat { len, stored_at })),
            Err(S3Error::NoObject) => Ok(None),
            Err(error) => Err(failed(key, error)),
        }
    }

    async fn list(&self, shelf: &Shelf, part: ShelfPart) -> Result<Vec<Listed>, TierError> {
        let prefix = format!("{}{}/", Key::prefix_of(shelf), part.directory());
        let found = self.until_stop(self.0.bucket.list(&prefix)).await;
        let found = found.map_err(|error| failed(&Key::pointer(shelf), error))?;
        let damaged = self.0.damaged.lock();
        let listed = found.into_iter().filter_map(|found| {
            let object = part.parse(&found.name)?;
            if damaged.contains(&Key::new(shelf, object)) {
                return None;
            }
            let stat = Stat {
                len: found.len,
                stored_at: found.stored_at,
            };
            Some(Listed { object, stat })
        });
        Ok(listed.collect())
    }

    async fn repositories(&self) -> Result<Vec<RepoName>, TierError> {
        let listed = self.until_stop(self.0.bucket.repositories("v1/")).await;
        listed.map_err(|source| TierError::BucketList {
            source: source.into(),
        })
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), TierError> {
        let failed_at = OnceLock::new();
        let delete = async |key: &Key| {
            let name = key.to_string();
            let delete = self.0.bucket.delete(&name);
            // The publisher relies on this limit: after 4 notice periods no collector deletes. See
            // `clock`.
            let deleted = tokio::time::timeout(self.0.write_limit, delete).await;
            let deleted = deleted.unwrap_or(Err(S3Error::TimedOut));
            deleted.inspect_err(|_| {
                failed_at.get_or_init(|| key.clone());
            })
        };
        let deleted = async {
            self.check_probed()?;
            let deleted = stream::iter(keys).map(delete);
            deleted.buffer_unordered(MAX_DELETES).try_collect().await
        };
        let deleted: Result<(), S3Error> = self.until_stop(deleted).await;
        match (deleted, failed_at.into_inner().as_ref().or(keys.first())) {
            (Err(error), Some(key)) => Err(failed(key, error)),
            _ => Ok(()),
        }
    }

    /// Only marks the segment: the next publish writes over it.
    async fn set_aside(&self, shelf: &Shelf, id: SegmentId) -> Result<(), TierError> {
        self.0.damaged.lock().insert(Key::segment(shelf, id));
        Ok(())
    }
}

impl SignUrl for S3Tier {
    fn sign<'a>(&'a self, wanted: &'a Extent) -> BoxFuture<'a, Option<DirectUrl>> {
        Box::pin(async move {
            let signer = self.0.signer.as_ref()?;
            if self.0.damaged.lock().contains(&wanted.key) {
                return None;
            }
            let name = wanted.key.to_string();
            signer
                .url(&self.0.bucket, &name, wanted.range.clone())
                .await
        })
    }
}

impl From<S3Tier> for BucketTier {
    fn from(tier: S3Tier) -> Self {
        let tier = Arc::new(tier);
        let signer = tier.0.signer.is_some();
        Self {
            metrics: Arc::clone(&tier.0.bucket.metrics),
            signer: signer.then(|| Arc::clone(&tier) as _),
            objects: tier,
        }
    }
}

fn failed(key: &Key, error: S3Error) -> TierError {
    let key = key.boxed();
    match error {
        S3Error::NoObject => TierError::NotFound { key },
        S3Error::NoRange => TierError::Truncated { key },
        source => TierError::Bucket {
            key,
            source: source.into(),
        },
    }
}
