//! How much of the disk copies of what is in the bucket take: within a limit, and the longest unused go
//! first. At a start they are found by their names and sizes, without reading them.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use cachewfs_format::RepoName;
use lru::LruCache;
use tracing::{debug, info, warn};

use crate::store::key::{Key, Part, Shelf};
use crate::store::tier::Tier as _;
use crate::store::{DiskTier, TierError};

/// The copies on disk.
#[derive(Debug)]
pub(super) struct Space {
    local: DiskTier,
    max_bytes: u64,
    copies: Mutex<Copies>,
}

#[derive(Debug)]
struct Copies {
    /// With their lengths, ordered by use.
    by_key: LruCache<Key, u64>,
    bytes: u64,
    /// Of files that are being filled.
    pending: u64,
    /// Evicted while the copies of an earlier start are looked for: not to be taken for present.
    evicted: Option<HashSet<Key>>,
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
                evicted: Some(HashSet::new()),
            }),
        }
    }

    /// Notes that a copy was read.
    pub(super) fn note_use(&self, key: &Key) {
        self.lock().by_key.promote(key);
    }

    /// Makes room for a file that is to be filled; `false` if there is none for it, beside the others that
    /// are being filled.
    pub(super) fn reserve(&self, len: u64) -> bool {
        {
            let mut copies = self.lock();
            if !may_begin(len, copies.pending, self.max_bytes) {
                return false;
            }
            copies.pending += len;
        }
        self.evict();
        true
    }

    /// Gives room back that was reserved.
    pub(super) fn release(&self, len: u64) {
        let mut copies = self.lock();
        copies.pending = copies.pending.saturating_sub(len);
    }

    /// Notes a new copy.
    pub(super) fn add(&self, key: &Key, len: u64) {
        {
            let mut copies = self.lock();
            let old = copies.by_key.put(key.clone(), len).unwrap_or(0);
            copies.bytes = copies.bytes - old + len;
        }
        self.evict();
    }

    /// Removes a copy that is no good.
    pub(super) fn drop_copy(&self, key: &Key) {
        {
            let mut copies = self.lock();
            let len = copies.by_key.pop(key).unwrap_or(0);
            copies.bytes -= len;
        }
        self.remove(key);
    }

    /// Removes what was unused the longest until a part of the disk is free again that was full.
    pub(super) fn free_some(&self) {
        let (bytes, wanted) = {
            let copies = self.lock();
            (copies.bytes, copies.bytes / 20)
        };
        self.evict_to(bytes.saturating_sub(wanted));
    }

    fn evict(&self) {
        let pending = self.lock().pending;
        self.evict_to(self.max_bytes.saturating_sub(pending));
    }

    fn evict_to(&self, max_bytes: u64) {
        loop {
            let key = {
                let mut copies = self.lock();
                if copies.bytes <= max_bytes {
                    return;
                }
                let Some((key, len)) = copies.by_key.pop_lru() else {
                    return;
                };
                copies.bytes -= len;
                if let Some(evicted) = &mut copies.evicted {
                    evicted.insert(key.clone());
                }
                key
            };
            self.remove(&key);
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
        let mut found = Vec::new();
        find(&self.local, &self.local.root.join("v1"), &mut found);
        found.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let count = found.len();
        let bytes = {
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
            copies.bytes
        };
        info!(
            count,
            bytes, "Found copies on disk of what is in the bucket"
        );
        self.evict();
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

/// When it was last used, what it is, how long it is.
type Copy = (SystemTime, Key, u64);

/// Looks below `directory`, which is that of all repositories or below; what can't be read isn't there.
fn find(local: &DiskTier, directory: &Path, found: &mut Vec<Copy>) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = path.strip_prefix(local.root.join("v1")).unwrap_or(&path);
        let repo = name.to_str().and_then(|name| name.strip_suffix(".git"));
        match repo.map(RepoName::parse) {
            Some(Ok(repo)) => {
                for shelf in [Shelf::of_snapshots(&repo), Shelf::of_lfs(&repo)] {
                    if let Err(error) = find_of(local, &shelf, found) {
                        warn!(%repo, %error, "Can't look for copies on disk");
                    }
                }
            }
            _ => find(local, &path, found),
        }
    }
}

fn find_of(local: &DiskTier, shelf: &Shelf, found: &mut Vec<Copy>) -> Result<(), TierError> {
    for part in [Part::Manifests, Part::Segments] {
        for listed in local.list(shelf, part)? {
            let key = Key::new(shelf, listed.object);
            // Reading leaves a trace of it, once a day at least (relatime).
            let read = fs::metadata(local.path(&key)).and_then(|metadata| metadata.accessed());
            let used = read.map_or(listed.stat.stored_at, |read| {
                read.max(listed.stat.stored_at)
            });
            found.push((used, key, listed.stat.len));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
