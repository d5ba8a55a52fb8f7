//! [`Tiers`]: the places where a store has its objects. Decides for each of them how near an object
//! is.

use std::path::Path;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};

use super::copies::Copies;
use super::key::{Key, Shelf};
use super::objects::{DirectUrl, Extent, Objects, Whole};
use super::open_bucket::BucketTier;
use super::reads::Reads;
use super::{BucketMetrics, DiskTier, TierError};

/// At most this many pointers are read at the same time for a listing.
pub(super) const MAX_READERS: usize = 16;

/// The tiers of a store.
#[derive(Clone, Debug)]
pub enum Tiers {
    Directory(DiskTier),
    /// A bucket without local copies.
    Bucket(BucketTier),
    /// Local copies of a bucket, in memory and on disk, and the bucket.
    Copies(Arc<Copies>),
}

impl From<DiskTier> for Tiers {
    fn from(disk: DiskTier) -> Self {
        Self::Directory(disk)
    }
}

impl From<BucketTier> for Tiers {
    fn from(bucket: BucketTier) -> Self {
        Self::Bucket(bucket)
    }
}

impl From<Copies> for Tiers {
    fn from(copies: Copies) -> Self {
        Self::Copies(Arc::new(copies))
    }
}

impl Tiers {
    /// Returns the objects as they are read first: the local copies, if there are any. They write
    /// to the bucket first.
    pub fn nearest(&self) -> &dyn Objects {
        match self {
            Self::Directory(disk) => disk,
            Self::Bucket(bucket) => &*bucket.objects,
            Self::Copies(copies) => &**copies,
        }
    }

    /// Returns the objects that are not copies.
    pub fn authoritative(&self) -> &dyn Objects {
        match self {
            Self::Directory(disk) => disk,
            Self::Bucket(bucket) => &*bucket.objects,
            Self::Copies(copies) => copies.remote(),
        }
    }

    /// Returns the counters of reads by tier.
    pub(super) fn reads(&self) -> Arc<Reads> {
        match self {
            Self::Directory(disk) => disk.reads(),
            // The bucket's own metrics count its requests.
            Self::Bucket(_) => Arc::default(),
            Self::Copies(copies) => copies.reads(),
        }
    }

    /// Returns the metrics of requests to the bucket, if there is one.
    pub(super) fn bucket_metrics(&self) -> Option<Arc<BucketMetrics>> {
        match self {
            Self::Directory(_) => None,
            Self::Bucket(bucket) => Some(Arc::clone(&bucket.metrics)),
            Self::Copies(copies) => Some(copies.bucket_metrics()),
        }
    }

    /// Fills `into` with the bytes of an object from `offset` on if no waiting is necessary.
    /// Returns whether it did.
    pub fn read_now(&self, key: &Key, offset: u64, into: &mut [u8]) -> bool {
        match self {
            Self::Directory(disk) => disk.read_now(key, offset, into),
            Self::Bucket(_) => false,
            Self::Copies(copies) => copies.read_now(key, offset, into),
        }
    }

    /// Makes local copies of extents. Waits until all of them can be read without the network.
    /// Without local copies, does nothing.
    pub async fn fetch_local(&self, wanted: &[Extent]) -> Result<(), TierError> {
        match self {
            Self::Directory(_) | Self::Bucket(_) => Ok(()),
            Self::Copies(copies) => copies.fetch_local(wanted).await,
        }
    }

    /// Starts to make local copies of extents that will be read soon, as far as nothing else is in
    /// flight. Without local copies, does nothing.
    pub fn fetch_local_soon(&self, wanted: Vec<Extent>) {
        match self {
            Self::Directory(_) | Self::Bucket(_) => {}
            Self::Copies(copies) => copies.fetch_local_soon(wanted),
        }
    }

    /// Returns a URL from which a client may read the extent directly, if direct reads are
    /// configured and the extent has no local copy.
    pub(super) async fn direct(&self, wanted: &Extent) -> Option<DirectUrl> {
        match self {
            Self::Directory(_) => None,
            Self::Bucket(bucket) => bucket.signer.as_ref()?.sign(wanted).await,
            Self::Copies(copies) => copies.direct(wanted).await,
        }
    }

    /// Reads objects like [`Objects::read_whole`], but each may be half a minute old.
    pub async fn read_recent(&self, keys: &[Key]) -> Vec<Result<Option<Whole>, TierError>> {
        match self {
            Self::Directory(_) | Self::Bucket(_) => {
                let objects = self.authoritative();
                let reads: Vec<_> = keys.iter().map(|key| objects.read_whole(key)).collect();
                stream::iter(reads).buffered(MAX_READERS).collect().await
            }
            Self::Copies(copies) => copies.read_recent(keys).await,
        }
    }

    /// Drops the local copies of an object, because they are damaged. Returns whether there may
    /// have been some.
    pub async fn drop_copies(&self, key: &Key) -> bool {
        match self {
            Self::Directory(_) | Self::Bucket(_) => false,
            Self::Copies(copies) => {
                copies.drop_damaged(key).await;
                true
            }
        }
    }

    /// Evicts half of the disk copies, or all, if they are on the filesystem of `path`. Returns
    /// whether there were any. Blocks.
    pub(super) fn make_room(&self, path: &Path, all: bool) -> bool {
        match self {
            Self::Directory(_) | Self::Bucket(_) => false,
            Self::Copies(copies) => copies.make_room(path, all),
        }
    }

    /// Deletes the rest of a shelf whose pointer and manifests are gone, except for the deletion
    /// notice and the LFS shelf below the shelf.
    pub async fn delete_shelf(&self, shelf: &Shelf) -> Result<(), TierError> {
        match self {
            Self::Directory(disk) => disk.delete_shelf(shelf).await,
            // Another daemon may be about to name the segments in the bucket.
            Self::Bucket(_) => Ok(()),
            Self::Copies(copies) => copies.drop_shelf(shelf).await,
        }
    }
}
