//! OverflowChunks that the disk has no room for, for as long as their readers need them.

use std::sync::{Arc, Mutex, PoisonError};

use cachewfs_format::SegmentId;
use lru::LruCache;

/// At most this many chunks, usually of 256 KiB, are kept, and so many bytes of them, or one chunk.
const MAX_CHUNKS: usize = 64;
const MAX_BYTES: usize = 32 << 20;

/// The newest chunks that could not be stored: with a full disk, reads go on uncached.
#[derive(Debug)]
pub(crate) struct Overflow(Mutex<OverflowChunks>);

#[derive(Debug)]
struct OverflowChunks {
    newest: LruCache<ChunkKey, Arc<Vec<u8>>>,
    bytes: usize,
}

/// A segment, and the index of a chunk in it.
type ChunkKey = (SegmentId, usize);

impl Default for Overflow {
    fn default() -> Self {
        Self(Mutex::new(OverflowChunks {
            newest: LruCache::unbounded(),
            bytes: 0,
        }))
    }
}

impl Overflow {
    /// Keeps the content of a chunk.
    pub(crate) fn insert(&self, id: SegmentId, index: usize, content: Vec<u8>) {
        let mut chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.bytes += content.len();
        let replaced = chunks.newest.put((id, index), Arc::new(content));
        chunks.bytes -= replaced.map_or(0, |old| old.len());
        while chunks.newest.len() > MAX_CHUNKS
            || chunks.bytes > MAX_BYTES && chunks.newest.len() > 1
        {
            let oldest = chunks.newest.pop_lru();
            chunks.bytes -= oldest.map_or(0, |(_, old)| old.len());
        }
    }

    /// The content of a chunk, if it is still here.
    pub(crate) fn get(&self, id: SegmentId, index: usize) -> Option<Arc<Vec<u8>>> {
        let mut chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.newest.get(&(id, index)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use cachewfs_format::Digest;

    use super::*;

    #[test]
    fn few_chunks_and_few_bytes_are_kept() {
        let id = SegmentId(Digest::of(b""));
        for (len, kept) in [(1, MAX_CHUNKS), (4 << 20, 8), (MAX_BYTES + 1, 1)] {
            let overflow = Overflow::default();

            for index in (0..100).flat_map(|index| [index, index]).take(200) {
                overflow.insert(id, index, vec![0; len]);
            }

            let found = (0..100).filter(|&index| overflow.get(id, index).is_some());
            assert_eq!(
                found.collect::<Vec<_>>(),
                (100 - kept..100).collect::<Vec<_>>()
            );
        }
    }
}
