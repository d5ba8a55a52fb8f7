//! [`Copies`]: local copies of a bucket, in memory and on disk.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fetch::{COMPLETERS, Fetcher, parts};
use super::fill::PART_LEN;
use super::manifests::SeenManifests;
use super::memory::Memory;
use super::overdue::Overdue;
use super::pointers::CachedPointers;
use super::repositories::KnownRepositories;
use super::space::Space;
use crate::clock::NoticePeriod;
use crate::directory::Directory;
use crate::key::{Key, Shelf, ShelfPart};
use crate::objects::{DirectUrl, Extent, Objects};
use crate::reads::Reads;
use crate::{BucketMetrics, BucketTier, DiskTier, TierError};

/// Local copies of a bucket, and the bucket.
#[derive(Debug)]
pub struct Copies {
    bucket: BucketTier,
    pub(super) fetcher: Fetcher,
    pub(super) pointers: CachedPointers,
    pub(super) manifests: SeenManifests,
    pub(super) overdue: Overdue,
    pub(super) repositories: KnownRepositories,
    /// Segments that are damaged in the bucket, until they are stored again.
    pub(super) set_aside: Mutex<HashSet<Key>>,
}

/// How many bytes the local copies may take.
#[derive(Clone, Copy, Debug)]
pub struct CopyLimits {
    pub memory: u64,
    pub disk: u64,
}

impl Copies {
    /// Keeps copies of `bucket`, in the runtime of the caller. No other daemon may use `local`.
    pub fn new(bucket: BucketTier, (local, tmp): (DiskTier, PathBuf), limits: CopyLimits) -> Self {
        let space = Arc::new(Space::new(Arc::clone(local.directory()), limits.disk));
        let memory = Memory::new(limits.memory);
        let reads = local.reads();
        let remote = Arc::clone(&bucket.objects);
        Self {
            bucket,
            fetcher: Fetcher::new(remote, (local, tmp), (space, memory), reads),
            pointers: CachedPointers::default(),
            manifests: SeenManifests::new(NoticePeriod::default()),
            overdue: Overdue::default(),
            repositories: KnownRepositories::default(),
            set_aside: Mutex::default(),
        }
    }

    /// Returns the copies with another notice period.
    pub fn with_notice(self, notice: NoticePeriod) -> Self {
        let manifests = SeenManifests::new(notice);
        Self { manifests, ..self }
    }

    /// Starts the background tasks, which run until `stop`.
    pub fn start(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        let space = Arc::clone(&self.fetcher.space);
        tasks.spawn(Arc::clone(&space).watch(stop.clone()));
        tasks.spawn_blocking(move || space.find_copies());
        for _ in 0..COMPLETERS {
            tasks.spawn(self.fetcher.clone().complete_fills(stop.clone()));
        }
    }

    #[cfg(test)]
    pub(super) fn copied_bytes(&self) -> u64 {
        self.fetcher.space.bytes()
    }

    pub(super) fn local(&self) -> &DiskTier {
        &self.fetcher.local
    }

    /// Returns the objects of the bucket.
    pub(crate) fn remote(&self) -> &dyn Objects {
        &*self.fetcher.remote
    }

    /// Returns the counters of reads by tier.
    pub(crate) fn reads(&self) -> Arc<Reads> {
        Arc::clone(&self.fetcher.reads)
    }

    pub(crate) fn bucket_metrics(&self) -> Arc<BucketMetrics> {
        Arc::clone(&self.bucket.metrics)
    }

    /// Fills `into` with the bytes of an object from `offset` on if they are in memory or in the
    /// page cache. Returns whether it did.
    pub(crate) fn read_now(&self, key: &Key, offset: u64, into: &mut [u8]) -> bool {
        let range = offset..offset + into.len() as u64;
        let wanted = parts(&range);
        if wanted.len() == 1
            && let Some(bytes) = self.fetcher.memory.get(key, wanted.start)
        {
            let start = offset - wanted.start as u64 * PART_LEN;
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            if let Some(bytes) = bytes.get(start..start.saturating_add(into.len())) {
                into.copy_from_slice(bytes);
                self.fetcher.reads.memory.note(into.len());
                return true;
            }
        }
        let is_read = self.local().read_now(key, offset, into);
        if is_read {
            self.fetcher.space.note_use(key);
        }
        is_read
    }

    /// Fetches extents. Waits until all of them can be read without the network.
    pub(crate) async fn fetch_local(&self, wanted: &[Extent]) -> Result<(), TierError> {
        let parts = wanted
            .iter()
            .flat_map(|extent| parts(&extent.range).map(move |part| (extent, part)));
        let all = parts.map(|(extent, part)| self.fetcher.part(&extent.key, extent.len, part));
        try_join_all(all).await.map(drop)
    }

    /// Starts to fetch extents that will be read soon, as far as nothing else is in flight.
    pub(crate) fn fetch_local_soon(&self, wanted: Vec<Extent>) {
        let fetcher = self.fetcher.clone();
        let fetch = async move { fetcher.fetch_soon(&wanted).await };
        // Nobody waits for it: if it fails, a reader fetches the bytes itself.
        drop(self.fetcher.runtime.spawn(fetch));
    }

    /// Returns a URL from which a client may read an extent that has no local copy.
    pub(crate) async fn direct(&self, wanted: &Extent) -> Option<DirectUrl> {
        let signer = self.bucket.signer.as_ref()?;
        if self.fetcher.is_local(wanted).await {
            return None;
        }
        signer.sign(wanted).await
    }

    /// Evicts half of the disk copies, or all, if they are on the filesystem of `path`. Returns
    /// whether there were any. Blocks.
    pub(crate) fn make_room(&self, path: &Path, all: bool) -> bool {
        self.fetcher.space.make_room(path, all)
    }

    /// Drops all copies of a shelf.
    pub(crate) async fn drop_shelf(&self, shelf: &Shelf) -> Result<(), TierError> {
        let (shelf, space) = (shelf.clone(), Arc::clone(&self.fetcher.space));
        let drop_shelf = move |local: &Directory| {
            // One by one, so that the copies are no longer counted.
            for part in [ShelfPart::Manifests, ShelfPart::Segments] {
                for listed in local.list(&shelf, part)? {
                    let key = Key::new(&shelf, listed.object);
                    space.drop_copy(&key);
                }
            }
            local.delete_shelf(&shelf)
        };
        self.local().run(drop_shelf).await
    }
}
