//! Copies on disk of what was written or found, and those that are no good.

use std::collections::HashSet;
use std::sync::{MutexGuard, PoisonError};

use tracing::warn;

use super::Tiers;
use crate::store::key::{Key, Object, Shelf};
use crate::store::tier::{NewSegment, Tier as _};

impl Tiers {
    /// Keeps a copy of a small object; that the disk doesn't take it is no failure.
    pub(super) fn keep(&self, key: &Key, bytes: &[u8]) {
        match self.local().put(key, bytes) {
            Ok(()) if key.object != Object::Pointer => {
                self.fetcher.space.add(key, bytes.len() as u64);
            }
            Ok(()) => {}
            Err(error) => warn!(%key, %error, "The disk takes no copy of what is in the bucket"),
        }
    }

    /// Keeps copies of segments, as many at once as there is room for: each time the disk has to be waited for.
    pub(super) fn keep_segments(&self, shelf: &Shelf, mut segments: Vec<NewSegment>) {
        let space = &self.fetcher.space;
        let len = segments.iter().map(|segment| segment.len).sum();
        let Some(first) = segments.first() else {
            return;
        };
        let is_one = segments.len() == 1;
        // A publish makes them all in one place.
        if !(is_one || space.takes_beside_others(len)) || !space.reserve_for(&first.file, len) {
            // One that is too long by itself is not kept.
            if !is_one {
                let others = segments.split_off(segments.len() / 2);
                self.keep_segments(shelf, segments);
                self.keep_segments(shelf, others);
            }
            return;
        }
        let copy = |segment: &NewSegment| (Key::segment(shelf, segment.id), segment.len);
        let copies: Vec<_> = segments.iter().map(copy).collect();
        let kept = self.local().create_segments(shelf, segments);
        space.release(len);
        for (key, len) in &copies {
            if kept.is_ok() || matches!(self.local().stat(key), Ok(Some(_))) {
                space.add(key, *len);
            }
        }
        if let Err(error) = kept {
            warn!(%shelf, %error, "The disk takes no copies of what is in the bucket");
            space.free_some();
        }
    }

    /// Drops what is near of an object that was found damaged.
    pub(super) fn drop_damaged(&self, key: &Key) {
        if matches!(self.local().stat(key), Ok(Some(_))) {
            warn!(%key, "A copy on disk is damaged, or what it is of, and is dropped");
        }
        self.fetcher.drop_damaged(key);
    }

    /// Drops what is near of damaged segments that were stored again.
    pub(super) fn drop_replaced(&self, shelf: &Shelf, stored: &[NewSegment]) {
        for segment in stored {
            let key = Key::segment(shelf, segment.id);
            if self.lock_set_aside().remove(&key) {
                self.drop_damaged(&key);
            }
        }
    }

    pub(super) fn lock_set_aside(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.set_aside
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
