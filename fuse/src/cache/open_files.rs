//! Limits how many files of the cache are open at once.

use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};

use super::SegmentFile;

/// At most this many segments have their files open, however many files the process may open.
const MAX_SEGMENTS: u64 = 4096;
/// The share of the process's files that is left for connections and open directories.
const SHARE_OF_OTHERS: u64 = 2;
/// The number of files of an open segment.
const FILES_OF_ONE: u64 = 2;

/// The open files of the segments that were used last. They stay open for the next read.
#[derive(Debug)]
pub(super) struct OpenFiles {
    /// By address. A file in the map stays alive, so no other one gets its address.
    newest: Mutex<LruCache<usize, Arc<SegmentFile>>>,
    max: usize,
}

impl OpenFiles {
    /// Returns an empty set, which may take half of the files that this process may open.
    pub(super) fn new() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let segments = (files / SHARE_OF_OTHERS / FILES_OF_ONE).clamp(1, MAX_SEGMENTS);
        Self::with_max(usize::try_from(segments).unwrap_or(1))
    }

    pub(super) fn with_max(max: usize) -> Self {
        Self {
            newest: Mutex::new(LruCache::unbounded()),
            max,
        }
    }

    /// Keeps `file` open as the most recently used one. Closes the least recently used one if too
    /// many are open, unless a reader is using it.
    pub(super) fn keep(&self, file: &Arc<SegmentFile>) {
        let mut newest = self.newest.lock();
        let address = Arc::as_ptr(file).addr();
        if newest.get(&address).is_none() {
            newest.put(address, Arc::clone(file));
        }
        let oldest = (newest.len() > self.max).then(|| newest.pop_lru());
        // Closing is a system call: without the lock, other readers don't wait for it.
        drop(newest);
        drop(oldest);
    }

    /// Closes `file`, unless a reader is using it.
    pub(super) fn close(&self, file: &Arc<SegmentFile>) {
        let closed = self.newest.lock().pop(&Arc::as_ptr(file).addr());
        drop(closed);
    }

    /// Closes all files that no reader is using. Returns whether there were any.
    pub(super) fn close_all(&self) -> bool {
        let all = std::mem::replace(&mut *self.newest.lock(), LruCache::unbounded());
        !all.is_empty()
    }
}
