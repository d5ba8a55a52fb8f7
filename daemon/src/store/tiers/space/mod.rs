//! How much of the disk copies of what is in the bucket take: within a limit, and the longest unused go
//! first. At a start they are found by their names and sizes, without reading them.
//!
//! What is evicted is chosen at once, by whoever needs room, and removed on a thread that may block. Copies
//! give way to what else is on the disk: a part of that is kept free of them.

mod found;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::found::find_copies;
use crate::store::DiskTier;
use crate::store::key::Key;
use crate::store::tier::Tier as _;
use crate::volume::Volume;

/// One part in so many of the disk is kept free of copies, up to a limit: what updates and publishes may write
/// until the next look.
const FREE_SHARE: u64 = 20;
const MAX_FREE: u64 = 4 << 30;
/// How often it is looked whether that is so.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The copies on disk.
#[derive(Debug)]
pub(super) struct Space {
    local: DiskTier,
    max_bytes: u64,
    copies: Mutex<Copies>,
    /// Told when something was evicted.
    has_evicted: Notify,
    /// Whether there is not enough free with no copy left.
    is_short: AtomicBool,
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
    /// Of these, and of what is being removed.
    doomed_bytes: u64,
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
            self.doomed_bytes += len;
            self.doomed.push_back((key, len));
        }
    }

    /// Evicts until `len` bytes can be written on `volume`, and what is kept free of it stays so.
    fn evict_for(&mut self, len: u64, volume: Option<Volume>) {
        let lack = volume.map_or(0, |volume| lack(len, volume, self.doomed_bytes));
        self.evict_to(self.bytes.saturating_sub(lack));
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
                doomed_bytes: 0,
                evicted: Some(HashSet::new()),
            }),
            has_evicted: Notify::new(),
            is_short: AtomicBool::new(false),
        }
    }

    /// Notes that a copy was read.
    pub(super) fn note_use(&self, key: &Key) {
        self.lock().by_key.promote(key);
    }

    /// Makes room for a file that is to be filled; `false` if there is none for it, beside the others that
    /// are being filled, and all else on the disk. Does not wait until what is evicted is removed.
    pub(super) fn reserve(&self, len: u64) -> bool {
        let volume = self.volume();
        let mut copies = self.lock();
        // How much of what is pending is on the disk already nobody knows: as if it were nothing.
        let wanted = copies.pending.saturating_add(len);
        let evictable = copies.bytes + copies.doomed_bytes;
        let has_room = volume.is_none_or(|volume| lack(wanted, volume, evictable) == 0);
        if !has_room || !may_begin(len, copies.pending, self.max_bytes) {
            return false;
        }
        copies.evict_for(len, volume);
        self.reserve_within_limit(copies, len)
    }

    /// The same for a copy of `file`, which takes no room that it hasn't yet if it can be moved. Waits, and
    /// blocks.
    pub(super) fn reserve_for(&self, file: &Path, len: u64) -> bool {
        let is_reserved = match self.local.is_beside(file) {
            Ok(true) => self.reserve_within_limit(self.lock(), len),
            _ => self.reserve(len),
        };
        self.remove_evicted();
        is_reserved
    }

    /// Whether files of so many bytes leave room for other copies.
    pub(super) fn takes_beside_others(&self, len: u64) -> bool {
        len <= self.max_bytes / 2
    }

    fn reserve_within_limit(&self, mut copies: MutexGuard<'_, Copies>, len: u64) -> bool {
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
            let Some((key, len)) = self.lock().doomed.pop_front() else {
                return;
            };
            self.remove(&key);
            let mut copies = self.lock();
            copies.doomed_bytes -= len;
            // It may have been made anew meanwhile, and be what was removed.
            if copies.by_key.contains(&key) && matches!(self.local.stat(&key), Ok(None)) {
                let len = copies.by_key.pop(&key).unwrap_or(0);
                copies.bytes -= len;
            }
        }
    }

    /// Evicts copies whose room something else on the disk needs, and removes what is evicted; blocks.
    fn look(&self) {
        let volume = self.volume();
        self.lock().evict_for(0, volume);
        self.remove_evicted();
        let lacks = self.volume().is_some_and(|volume| lack(0, volume, 0) > 0);
        let is_short = lacks && self.lock().bytes == 0;
        self.is_short.store(is_short, Ordering::Relaxed);
    }

    /// Whether copies that are being made have to give way, too.
    pub(super) fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    /// Looks again and again, and when something is evicted, until the daemon stops.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let this = Arc::clone(&self);
            let look = tokio::task::spawn_blocking(move || this.look());
            if look.await.is_err() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.has_evicted.notified() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Makes room for who found none at `path`, if that is on the same disk: removes half of the copies, or
    /// all; tells whether there were any. Blocks.
    pub(super) fn make_room(&self, path: &Path, all: bool) -> bool {
        if !self.local.is_beside(path).unwrap_or(false) {
            return false;
        }
        let had_any = {
            let mut copies = self.lock();
            let before = copies.bytes;
            copies.evict_to(if all { 0 } else { before / 2 });
            before > 0
        };
        self.remove_evicted();
        had_any
    }

    fn volume(&self) -> Option<Volume> {
        Volume::of(&self.local.root)
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

/// How much is lacking on `volume` to write `len` bytes and keep free what is kept free, if `soon_free` bytes
/// are removed.
fn lack(len: u64, volume: Volume, soon_free: u64) -> u64 {
    let kept_free = (volume.total / FREE_SHARE).min(MAX_FREE);
    let free = volume.free.saturating_add(soon_free);
    kept_free.saturating_add(len).saturating_sub(free)
}
