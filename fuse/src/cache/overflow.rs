//! Chunks that the disk has no room for, for as long as their readers need them.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use cachewfs_format::SegmentId;
use lru::LruCache;

/// At most this many chunks of at most 4 MiB, usually 256 KiB: 16 MiB.
const MAX_CHUNKS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// The newest chunks that could not be stored: with a full disk, reads go on uncached.
#[derive(Debug)]
pub(crate) struct Overflow(Mutex<LruCache<ChunkKey, Arc<Vec<u8>>>>);

/// A segment, and the index of a chunk in it.
type ChunkKey = (SegmentId, usize);

impl Default for Overflow {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_CHUNKS)))
    }
}

impl Overflow {
    /// Keeps the content of a chunk.
    pub(crate) fn insert(&self, id: SegmentId, index: usize, content: Vec<u8>) {
        let mut chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.put((id, index), Arc::new(content));
    }

    /// The content of a chunk, if it is still here.
    pub(crate) fn get(&self, id: SegmentId, index: usize) -> Option<Arc<Vec<u8>>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&(id, index))
            .cloned()
    }
}
