//! Keeps a few chunks in memory that could not be written to disk, until their readers have them.

use std::sync::Arc;

use cachewfs_format::SegmentId;
use lru::LruCache;
use parking_lot::Mutex;

/// At most this many chunks. A chunk usually has 256 KiB.
const MAX_CHUNKS: usize = 64;
/// At most this many bytes of all chunks, unless a single chunk is longer.
const MAX_BYTES: usize = 32 << 20;

/// The newest chunks that could not be written. If the disk is full, reads use these chunks
/// instead.
#[derive(Debug)]
pub(crate) struct Overflow(Mutex<OverflowChunks>);

#[derive(Debug)]
struct OverflowChunks {
    newest: LruCache<ChunkKey, Arc<Vec<u8>>>,
    bytes: usize,
}

/// The id of a segment, and the index of a chunk in the segment.
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
    /// Keeps the content of a chunk, and drops the least recently used chunks beyond the limits.
    pub(crate) fn insert(&self, id: SegmentId, index: usize, content: Vec<u8>) {
        let mut chunks = self.0.lock();
        chunks.bytes += content.len();
        let replaced = chunks.newest.put((id, index), Arc::new(content));
        chunks.bytes -= replaced.map_or(0, |old| old.len());
        // One chunk always stays, however long it is: a reader waits for the newest one.
        while chunks.newest.len() > MAX_CHUNKS
            || chunks.bytes > MAX_BYTES && chunks.newest.len() > 1
        {
            let oldest = chunks.newest.pop_lru();
            chunks.bytes -= oldest.map_or(0, |(_, old)| old.len());
        }
    }

    /// Returns the content of a chunk, or `None` if it has been dropped.
    pub(crate) fn get(&self, id: SegmentId, index: usize) -> Option<Arc<Vec<u8>>> {
        let mut chunks = self.0.lock();
        chunks.newest.get(&(id, index)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use cachewfs_format::Digest;

    use super::*;

    #[test]
    fn the_number_and_the_bytes_of_chunks_are_limited() {
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
