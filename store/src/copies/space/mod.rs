//! [`Space`]: limits the disk space of local copies, and evicts the least recently used. At a start
//! the copies are found by their names and lengths, without reading them.
//!
//! A caller that needs space chooses what to evict at once; a thread that may block removes the
//! files later. Copies make way for other files: a share of the disk is kept free of them.

mod found;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cachewfs_base::Volume;
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::found::find_copies;
use crate::directory::Directory;
use crate::key::Key;

/// One part in this many of the disk is kept free of copies, up to a limit: room for updates and
/// publishes until the next look.
const FREE_SHARE: u64 = 20;
const MAX_FREE: u64 = 4 << 30;
/// How often the free space is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The local copies on disk.
#[derive(Debug)]
pub(super) struct Space {
    local: Arc<Directory>,
    max_bytes: u64,
    copies: Mutex<Copies>,
    /// Notified when a copy was evicted.
    has_evicted: Notify,
    /// Whether too little is free although no copy is left.
    is_short: AtomicBool,
}

#[derive(Debug)]
struct Copies {
    /// The copies and their lengths, by their last use.
    by_key: LruCache<Key, u64>,
    bytes: u64,
    /// The bytes that are reserved for files that are being filled.
    pending: u64,
    /// Evicted copies that are not yet removed, with their lengths.
    doomed: VecDeque<(Key, u64)>,
    /// The bytes of these copies, and of the one that is being removed.
    doomed_bytes: u64,
    /// The copies that were evicted while those of an earlier start are searched for. The search
    /// may have found them before, and must not add them again.
    evicted: Option<HashSet<Key>>,
}

impl Copies {
    /// Evicts the least recently used copies until at most `max_bytes` are left.
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

    /// Evicts copies until `len` bytes can be written on `volume` without touching the share that
    /// is kept free.
    fn evict_for(&mut self, len: u64, volume: Option<Volume>) {
        let lack = volume.map_or(0, |volume| lack(len, volume, self.doomed_bytes));
        self.evict_to(self.bytes.saturating_sub(lack));
    }
}

impl Space {
    pub(super) fn new(local: Arc<Directory>, max_bytes: u64) -> Self {
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

    /// Records that a copy was read.
    pub(super) fn note_use(&self, key: &Key) {
        self.copies.lock().by_key.promote(key);
    }

    /// Reserves space for a file that is to be filled. Returns `false` if there is none beside the
    /// other fills and the other files on the disk. Doesn't wait until evicted copies are removed.
    pub(super) fn reserve(&self, len: u64) -> bool {
        let volume = self.volume();
        let mut copies = self.copies.lock();
        // How much of the reserved space the fills have written already isn't known. Assume
        // nothing, which only makes this stricter.
        let wanted = copies.pending.saturating_add(len);
        let evictable = copies.bytes + copies.doomed_bytes;
        let has_room = volume.is_none_or(|volume| lack(wanted, volume, evictable) == 0);
        if !has_room || !may_begin(len, copies.pending, self.max_bytes) {
            return false;
        }
        // Only now: a file that gets no space must not evict anything.
        copies.evict_for(len, volume);
        self.reserve_within_limit(copies, len)
    }

    /// Reserves space for a copy of `file`. If `file` can be moved, the copy takes no more space on
    /// the disk than it takes already. Waits until evicted copies are removed. Blocks.
    pub(super) fn reserve_for(&self, file: &Path, len: u64) -> bool {
        let is_reserved = match self.local.is_beside(file) {
            Ok(true) => self.reserve_within_limit(self.copies.lock(), len),
            _ => self.reserve(len),
        };
        self.remove_evicted();
        is_reserved
    }

    /// Returns whether `len` bytes leave room for other copies.
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

    /// Gives reserved space back.
    pub(super) fn release(&self, len: u64) {
        let mut copies = self.copies.lock();
        copies.pending = copies.pending.saturating_sub(len);
    }

    /// Records a new copy.
    pub(super) fn add(&self, key: &Key, len: u64) {
        let mut copies = self.copies.lock();
        let old = copies.by_key.put(key.clone(), len).unwrap_or(0);
        copies.bytes = copies.bytes - old + len;
        self.evict(copies);
    }

    /// Removes a copy that is damaged or stale. Blocks.
    pub(super) fn drop_copy(&self, key: &Key) {
        {
            let mut copies = self.copies.lock();
            let len = copies.by_key.pop(key).unwrap_or(0);
            copies.bytes -= len;
        }
        self.remove(key);
    }

    /// Evicts the least recently used copies, a twentieth of all bytes, because the disk was full.
    pub(super) fn free_some(&self) {
        let mut copies = self.copies.lock();
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

    /// Removes the evicted copies. Blocks.
    pub(super) fn remove_evicted(&self) {
        loop {
            let Some((key, len)) = self.copies.lock().doomed.pop_front() else {
                return;
            };
            self.remove(&key);
            let mut copies = self.copies.lock();
            copies.doomed_bytes -= len;
            // The copy may have been made again between its eviction and its removal, and then the
            // new file was removed: don't count it.
            if copies.by_key.contains(&key) && matches!(self.local.stat(&key), Ok(None)) {
                let len = copies.by_key.pop(&key).unwrap_or(0);
                copies.bytes -= len;
            }
        }
    }

    /// Evicts copies whose space other files on the disk need, and removes the evicted ones.
    /// Blocks.
    fn look(&self) {
        let volume = self.volume();
        self.copies.lock().evict_for(0, volume);
        self.remove_evicted();
        let lacks = self.volume().is_some_and(|volume| lack(0, volume, 0) > 0);
        let is_short = lacks && self.copies.lock().bytes == 0;
        // Only if all complete copies are gone: they make way before the ones that are being made.
        self.is_short.store(is_short, Ordering::Relaxed);
    }

    /// Returns whether copies that are being made have to make way too.
    pub(super) fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    /// Looks at the free space periodically, and whenever a copy was evicted, until the daemon
    /// stops.
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

    /// Evicts half of the copies, or all, if `path` is on their filesystem. Returns whether there
    /// were any. Blocks.
    pub(super) fn make_room(&self, path: &Path, all: bool) -> bool {
        if !self.local.is_beside(path).unwrap_or(false) {
            return false;
        }
        let had_any = {
            let mut copies = self.copies.lock();
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
            Ok(()) => debug!(%key, "Evicted a local copy"),
            Err(error) => warn!(%key, %error, "Can't remove a local copy"),
        }
    }

    /// Finds the copies that earlier runs of the daemon left. Blocks. A copy that is used meanwhile
    /// counts as used more recently than the found ones.
    pub(super) fn find_copies(&self) {
        let found = find_copies(&self.local);
        let count = found.len();
        let mut copies = self.copies.lock();
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
        info!(count, bytes, "Found local copies on disk");
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.copies.lock().bytes
    }
}

/// Returns whether a file may be filled beside others of `pending` bytes. Fills may take half of
/// the limit, so that they don't evict all complete copies. A longer file is filled alone.
fn may_begin(len: u64, pending: u64, max_bytes: u64) -> bool {
    let is_alone = pending == 0 && len <= max_bytes;
    is_alone || pending.saturating_add(len) <= max_bytes / 2
}

/// Returns how many bytes are lacking on `volume` to write `len` bytes and keep its share free, if
/// `soon_free` bytes are about to be removed.
fn lack(len: u64, volume: Volume, soon_free: u64) -> u64 {
    let kept_free = (volume.total / FREE_SHARE).min(MAX_FREE);
    let free = volume.free.saturating_add(soon_free);
    kept_free.saturating_add(len).saturating_sub(free)
}
