//! [`Memory`]: the parts of segments that were read last, in memory.

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use crate::key::Key;

/// A segment, and the index of a part.
type PartKey = (Key, usize);

/// A cache of parts, limited by their bytes. The least recently used go first.
#[derive(Debug)]
pub(super) struct Memory {
    max_bytes: usize,
    parts: Mutex<CachedParts>,
}

#[derive(Debug)]
struct CachedParts {
    by_key: LruCache<PartKey, Bytes>,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            parts: Mutex::new(CachedParts {
                by_key: LruCache::unbounded(),
                bytes: 0,
            }),
        }
    }

    pub(super) fn get(&self, key: &Key, part: usize) -> Option<Bytes> {
        self.parts.lock().by_key.get(&(key.clone(), part)).cloned()
    }

    pub(super) fn has(&self, key: &Key, part: usize) -> bool {
        self.parts.lock().by_key.contains(&(key.clone(), part))
    }

    pub(super) fn put(&self, key: &Key, part: usize, bytes: Bytes) {
        let mut parts = self.parts.lock();
        parts.bytes += bytes.len();
        if let Some(old) = parts.by_key.put((key.clone(), part), bytes) {
            parts.bytes -= old.len();
        }
        while parts.bytes > self.max_bytes
            && let Some((_, oldest)) = parts.by_key.pop_lru()
        {
            parts.bytes -= oldest.len();
        }
    }

    /// Drops all parts of a segment.
    pub(super) fn forget(&self, key: &Key) {
        let mut parts = self.parts.lock();
        let of_it = parts.by_key.iter().filter(|((of, _), _)| of == key);
        let of_it: Vec<PartKey> = of_it.map(|(part, _)| part.clone()).collect();
        for part in of_it {
            let len = parts.by_key.pop(&part).map_or(0, |bytes| bytes.len());
            parts.bytes -= len;
        }
    }
}

#[cfg(test)]
mod tests {
    use cachewfs_format::{Digest, RepoName, SegmentId};

    use super::*;
    use crate::key::Shelf;

    #[test]
    fn keeps_what_was_used_last_within_its_bytes() {
        let repo = RepoName::parse("example.com/a").unwrap();
        let key = Key::segment(&Shelf::of_snapshots(&repo), SegmentId(Digest::of(b"x")));
        let memory = Memory::new(100);
        for part in 0..2 {
            memory.put(&key, part, vec![0; 40].into());
        }
        memory.put(&key, 1, vec![1; 40].into());

        memory.get(&key, 0);
        memory.put(&key, 2, vec![0; 40].into());

        assert!(memory.has(&key, 0) && memory.has(&key, 2));
        assert!(!memory.has(&key, 1));
        assert_eq!(memory.parts.lock().bytes, 80);
        memory.forget(&key);
        assert!(!memory.has(&key, 0) && !memory.has(&key, 2));
        assert_eq!(memory.parts.lock().bytes, 0);
    }
}
