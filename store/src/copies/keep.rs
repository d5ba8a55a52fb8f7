//! Makes local copies of objects on disk, and drops damaged ones.

use tracing::warn;

use super::Copies;
use super::fetch::Fetcher;
use crate::key::{Key, Object, Shelf};
use crate::objects::{NewSegment, Objects as _};

impl Copies {
    /// Makes a local copy of a small object. A failure is logged only.
    pub(super) async fn keep(&self, key: &Key, bytes: &[u8]) {
        let (key, bytes) = (key.clone(), bytes.to_vec());
        self.fetcher
            .run(move |fetcher| fetcher.keep(&key, &bytes))
            .await;
    }

    /// Makes local copies of segments.
    pub(super) async fn keep_segments(&self, shelf: &Shelf, segments: Vec<NewSegment>) {
        let shelf = shelf.clone();
        self.fetcher
            .run(move |fetcher| fetcher.keep_segments(&shelf, segments))
            .await;
    }

    /// Drops the local copies of a damaged object.
    pub(crate) async fn drop_damaged(&self, key: &Key) {
        if matches!(self.local().stat(key).await, Ok(Some(_))) {
            warn!(%key, "Dropping a local copy: it is damaged, or its object in the bucket is");
        }
        let key = key.clone();
        self.fetcher
            .run(move |fetcher| fetcher.drop_damaged(&key))
            .await;
    }

    /// Drops the local copies of damaged segments that have been stored again.
    pub(super) async fn drop_replaced(&self, shelf: &Shelf, stored: &[NewSegment]) {
        for segment in stored {
            let key = Key::segment(shelf, segment.id);
            if self.set_aside.lock().remove(&key) {
                self.drop_damaged(&key).await;
            }
        }
    }
}

/// The work on the disk. Blocks.
impl Fetcher {
    fn keep(&self, key: &Key, bytes: &[u8]) {
        match self.local.directory().put(key, bytes) {
            // Pointers aren't counted and so never evicted: they are small, and needed in an
            // outage.
            Ok(()) if key.object != Object::Pointer => {
                self.space.add(key, bytes.len() as u64);
            }
            Ok(()) => {}
            Err(error) => warn!(%key, %error, "Can't make a local copy of an object of the bucket"),
        }
    }

    /// Makes as many copies at a time as fit: each call waits for the disk once.
    fn keep_segments(&self, shelf: &Shelf, mut segments: Vec<NewSegment>) {
        let space = &self.space;
        let len = segments.iter().map(|segment| segment.len).sum();
        let Some(first) = segments.first() else {
            return;
        };
        let is_one = segments.len() == 1;
        // A publish makes all its files in one place, so the first one tells the filesystem of all.
        if !(is_one || space.takes_beside_others(len)) || !space.reserve_for(&first.file, len) {
            // A single segment that is too long for the limit gets no copy.
            if !is_one {
                // Halved until they fit: a few large batches need fewer syncs than single segments.
                let others = segments.split_off(segments.len() / 2);
                self.keep_segments(shelf, segments);
                self.keep_segments(shelf, others);
            }
            return;
        }
        let copy = |segment: &NewSegment| (Key::segment(shelf, segment.id), segment.len);
        let copies: Vec<_> = segments.iter().map(copy).collect();
        let local = self.local.directory();
        let kept = local.create_segments(shelf, segments);
        space.release(len);
        // A call that failed may have moved some of the files.
        for (key, len) in &copies {
            if kept.is_ok() || matches!(local.stat(key), Ok(Some(_))) {
                space.add(key, *len);
            }
        }
        if let Err(error) = kept {
            warn!(%shelf, %error, "Can't make local copies of segments of the bucket");
            space.free_some();
        }
    }
}
