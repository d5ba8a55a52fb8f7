//! [`DiskTier`]: a tier in a directory. Its calls run on threads that may block.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use cachewfs_format::{RepoName, SegmentId};

use super::TierError;
use super::blocking::run_blocking;
use super::directory::Directory;
use super::key::{Key, Shelf, ShelfPart};
use super::objects::{Listed, NewSegment, Objects, Stat, Version, Whole, Written};
use super::reads::Reads;

/// A tier in a directory.
#[derive(Clone, Debug)]
pub struct DiskTier(Arc<Directory>);

impl DiskTier {
    /// Creates or opens a tier. `tmp` must be on the filesystem of `root`. Blocks.
    pub fn create(root: &Path, tmp: &Path) -> Result<Self, TierError> {
        Ok(Self(Arc::new(Directory::open(root, tmp)?)))
    }

    /// Returns the directory, whose calls block.
    pub(super) fn directory(&self) -> &Arc<Directory> {
        &self.0
    }

    /// Returns the counters of its reads.
    pub(super) fn reads(&self) -> Arc<Reads> {
        self.0.reads()
    }

    /// Fills `into` if the bytes are in the page cache. Returns whether it did.
    pub(super) fn read_now(&self, key: &Key, offset: u64, into: &mut [u8]) -> bool {
        self.0.read_now(key, offset, into)
    }

    /// Deletes the rest of a shelf whose pointer and manifests are gone, except for the deletion
    /// notice and the LFS shelf below the shelf.
    pub(super) async fn delete_shelf(&self, shelf: &Shelf) -> Result<(), TierError> {
        let shelf = shelf.clone();
        self.run(move |directory| directory.delete_shelf(&shelf))
            .await
    }

    /// Runs `work` on a thread that may block. If the caller goes away, the work goes on to its
    /// end.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Directory) -> Result<T, TierError> + Send + 'static,
    ) -> Result<T, TierError> {
        let directory = Arc::clone(&self.0);
        let done = run_blocking(move || work(&directory)).await;
        let stopping = || std::io::Error::other("the daemon is stopping");
        done.unwrap_or_else(|| Err(TierError::at(&self.0.root)(stopping())))
    }
}

#[async_trait]
impl Objects for DiskTier {
    async fn read_at(&self, key: &Key, offset: u64, into: &mut [u8]) -> Result<(), TierError> {
        // Handing bytes of the page cache from thread to thread takes longer than reading them.
        if self.read_now(key, offset, into) {
            return Ok(());
        }
        let (key, len) = (key.clone(), into.len());
        let read = move |directory: &Directory| {
            let mut bytes = vec![0; len];
            directory.read_at(&key, offset, &mut bytes)?;
            Ok(bytes)
        };
        into.copy_from_slice(&self.run(read).await?);
        Ok(())
    }

    async fn read_whole(&self, key: &Key) -> Result<Option<Whole>, TierError> {
        let key = key.clone();
        self.run(move |directory| directory.read_whole(&key)).await
    }

    async fn create(&self, key: &Key, bytes: &[u8]) -> Result<Written, TierError> {
        let (key, bytes) = (key.clone(), bytes.to_vec());
        self.run(move |directory| directory.create(&key, &bytes))
            .await
    }

    async fn create_segments(
        &self,
        shelf: &Shelf,
        segments: Vec<NewSegment>,
    ) -> Result<u64, TierError> {
        let shelf = shelf.clone();
        self.run(move |directory| directory.create_segments(&shelf, segments))
            .await
    }

    async fn swap(
        &self,
        key: &Key,
        expected: Option<&Version>,
        bytes: &[u8],
    ) -> Result<Written, TierError> {
        let (key, expected, bytes) = (key.clone(), expected.cloned(), bytes.to_vec());
        self.run(move |directory| directory.swap(&key, expected.as_ref(), &bytes))
            .await
    }

    async fn stat(&self, key: &Key) -> Result<Option<Stat>, TierError> {
        let key = key.clone();
        self.run(move |directory| directory.stat(&key)).await
    }

    async fn list(&self, shelf: &Shelf, part: ShelfPart) -> Result<Vec<Listed>, TierError> {
        let shelf = shelf.clone();
        self.run(move |directory| directory.list(&shelf, part))
            .await
    }

    async fn repositories(&self) -> Result<Vec<RepoName>, TierError> {
        self.run(Directory::repositories).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), TierError> {
        let keys = keys.to_vec();
        self.run(move |directory| directory.delete(&keys)).await
    }

    async fn set_aside(&self, shelf: &Shelf, id: SegmentId) -> Result<(), TierError> {
        let shelf = shelf.clone();
        self.run(move |directory| directory.set_aside(&shelf, id))
            .await
    }
}
