//! Copies on disk of what was written or found.

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
        if segments.is_empty() {
            return;
        }
        if !space.reserve(len) {
            // One that is too long by itself is not kept.
            if segments.len() > 1 {
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
}
