//! How much of the disk copies of what is in the bucket take: within a limit, and the longest unused go
//! first. At a start they are found by their names and sizes, without reading them.
//!
//! What is evicted is chosen at once, by whoever needs room, and removed on a thread that may block.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::found::find_copies;
use crate::store::DiskTier;
use crate::store::key::Key;
use crate::store::tier::Tier as _;

/// The copies on disk.
#[derive(Debug)]
pub(super) struct Space {
    local: DiskTier,
    max_bytes: u64,
    copies: Mutex<Copies>,
    /// Told when something was evicted.
    has_evicted: Notify,
}

#[derive(Debug)]
struct Copies {
    /// With their lengths, ordered by use.
    by_key: LruCache<Key, u64>,
    bytes: u64,
    /// Of files that are being filled.
    pending: u64,
    /// Evicted, and still to be removed, with their lengths.
    doomed: VecDeque<(Key, u64)>,
    /// Evicted while the copies of an earlier start are looked for: not to be taken for present.
    evicted: Option<HashSet<Key>>,
}

impl Copies {
    /// Chooses what was unused the longest, until no more than `max_bytes` are left.
    fn evict_to(&mut self, max_bytes: u64) {
        while self.bytes > max_bytes
            && let Some((key, len)) = self.by_key.pop_lru()
        {
            self.bytes -= len;
            if let Some(evicted) = &mut self.evicted {
                evicted.insert(key.clone());
            }
            self.doomed.push_back((key, len));
        }
    }
}

impl Space {
    pub(super) fn new(local: DiskTier, max_bytes: u64) -> Self {
        Self {
            local,
            max_bytes,
            copies: Mutex::new(Copies {
                by_key: LruCache::unbounded(),
                bytes: 0,
                pending: 0,
                doomed: VecDeque::new(),
                evicted: Some(HashSet::new()),
            }),
            has_evicted: Notify::new(),
        }
    }

    /// Notes that a copy was read.
    pub(super) fn note_use(&self, key: &Key) {
        self.lock().by_key.promote(key);
    }

    /// Makes room for a file that is to be filled; `false` if there is none for it, beside the others that
    /// are being filled. Does not wait until what is evicted is removed.
    pub(super) fn reserve(&self, len: u64) -> bool {
        let mut copies = self.lock();
        if !may_begin(len, copies.pending, self.max_bytes) {
            return false;
        }
        copies.pending += len;
        self.evict(copies);
        true
    }

    /// Gives room back that was reserved.
    pub(super) fn release(&self, len: u64) {
        let mut copies = self.lock();
        copies.pending = copies.pending.saturating_sub(len);
    }

    /// Notes a new copy.
    pub(super) fn add(&self, key: &Key, len: u64) {
        let mut copies = self.lock();
        let old = copies.by_key.put(key.clone(), len).unwrap_or(0);
        copies.bytes = copies.bytes - old + len;
        self.evict(copies);
    }

    /// Removes a copy that is no good; blocks.
    pub(super) fn drop_copy(&self, key: &Key) {
        {
            let mut copies = self.lock();
            let len = copies.by_key.pop(key).unwrap_or(0);
            copies.bytes -= len;
        }
        self.remove(key);
    }

    /// Evicts what was unused the longest, so that a part of a disk is free again that was full.
    pub(super) fn free_some(&self) {
        let mut copies = self.lock();
        let kept = copies.bytes - copies.bytes / 20;
        copies.evict_to(kept);
        self.has_evicted.notify_one();
    }

    fn evict(&self, mut copies: MutexGuard<'_, Copies>) {
        let kept = self.max_bytes.saturating_sub(copies.pending);
        copies.evict_to(kept);
        if !copies.doomed.is_empty() {
            self.has_evicted.notify_one();
        }
    }

    /// Removes what was evicted; blocks.
    pub(super) fn remove_evicted(&self) {
        loop {
            let Some((key, _)) = self.lock().doomed.pop_front() else {
                return;
            };
            self.remove(&key);
            let mut copies = self.lock();
            // It may have been made anew meanwhile, and be what was removed.
            if copies.by_key.contains(&key) && matches!(self.local.stat(&key), Ok(None)) {
                let len = copies.by_key.pop(&key).unwrap_or(0);
                copies.bytes -= len;
            }
        }
    }

    /// Removes what is evicted, until the daemon stops.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let this = Arc::clone(&self);
            let removed = tokio::task::spawn_blocking(move || this.remove_evicted());
            if removed.await.is_err() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.has_evicted.notified() => {}
            }
        }
    }

    fn remove(&self, key: &Key) {
        match self.local.delete(std::slice::from_ref(key)) {
            Ok(()) => debug!(%key, "Evicted a copy of what is in the bucket"),
            Err(error) => warn!(%key, %error, "Can't remove a copy of what is in the bucket"),
        }
    }

    /// Finds the copies of earlier starts; blocks. What is used meanwhile counts as used later.
    pub(super) fn find_copies(&self) {
        let found = find_copies(&self.local);
        let count = found.len();
        let mut copies = self.lock();
        let evicted = copies.evicted.take().unwrap_or_default();
        for (_, key, len) in found {
            if copies.by_key.contains(&key) || evicted.contains(&key) {
                continue;
            }
            copies.by_key.put(key.clone(), len);
            copies.by_key.demote(&key);
            copies.bytes += len;
        }
        let bytes = copies.bytes;
        self.evict(copies);
        info!(
            count,
            bytes, "Found copies on disk of what is in the bucket"
        );
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file may be filled beside those of `pending` bytes: these may take half of what there is, so that
/// they don't evict all that is whole; one that is longer is filled alone.
fn may_begin(len: u64, pending: u64, max_bytes: u64) -> bool {
    let is_alone = pending == 0 && len <= max_bytes;
    is_alone || pending.saturating_add(len) <= max_bytes / 2
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::store::testing::{new_segment, noise, shelf};

    fn space(directory: &Path, max_bytes: u64) -> Space {
        let at = |name: &str| directory.join(name);
        let local = DiskTier::create(&at("disk"), &at("tmp")).unwrap();
        Space::new(local, max_bytes)
    }

    #[test]
    fn what_is_reserved_together_takes_half_and_one_alone_takes_all() {
        let directory = tempfile::tempdir().unwrap();
        let space = space(directory.path(), 100);

        assert!(space.reserve(40));
        assert!(!space.reserve(40));
        assert!(space.reserve(10));
        assert!(!space.reserve(1));
        space.release(40);
        assert!(!space.reserve(90), "beside another");
        space.release(10);
        assert!(!space.reserve(101));
        assert!(space.reserve(90));
        assert!(!space.reserve(1), "beside a long one");
    }

    /// Puts a copy on disk.
    fn put(space: &Space, seed: u32, len: usize) -> Key {
        let segment = new_segment(&space.local.tmp, &noise(seed, len));
        let key = Key::segment(&shelf(), segment.id);
        let stored = space.local.create_segments(&shelf(), vec![segment]);
        stored.unwrap();
        space.add(&key, len as u64);
        key
    }

    #[test]
    fn what_is_evicted_is_removed_by_who_may_block() {
        let directory = tempfile::tempdir().unwrap();
        let space = space(directory.path(), 1000);
        let keys: Vec<_> = (0..3).map(|seed| put(&space, seed, 300)).collect();
        let there = || keys.iter().map(|key| space.local.path(key).exists());

        assert!(space.reserve(500));
        assert!(there().all(|is_there| is_there));
        assert_eq!(space.bytes(), 300);

        space.remove_evicted();
        assert!(there().eq([false, false, true]));
    }

    #[test]
    fn a_copy_that_is_removed_with_the_one_before_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let space = space(directory.path(), 1000);
        let key = put(&space, 1, 300);
        assert!(space.reserve(900));
        space.release(900);
        put(&space, 1, 300);

        space.remove_evicted();

        assert!(!space.local.path(&key).exists());
        assert_eq!(space.bytes(), 0);
    }

    #[test]
    fn those_who_reserve_at_the_same_time_get_no_more_than_half() {
        let directory = tempfile::tempdir().unwrap();
        let space = space(directory.path(), 1000);

        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        if space.reserve(130) {
                            assert!(space.lock().pending <= 500);
                            space.release(130);
                        }
                    }
                });
            }
        });

        assert_eq!(space.lock().pending, 0);
    }
}
