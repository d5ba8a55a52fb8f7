//! The registry of all segments in use.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use cachewfs_format::{SegmentId, TocSegment};
use parking_lot::Mutex;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::{Backend, Segment, SegmentLocation};
use crate::waiting::Waiting;

/// How long eviction waits while it can't get the cache below its limit. If pins fill the cache,
/// each stored chunk would cause another scan of all files.
const EVICTION_INTERVAL: Duration = Duration::from_secs(1);

/// How long files that another mount has evicted may stay open here. Also the time after which a
/// mount that stores nothing counts the cache.
const FORGETTING_INTERVAL: Duration = Duration::from_secs(30);

/// The segments of all snapshots that the mount shows.
///
/// Two snapshots that share a segment have the same [`Segment`] value. A chunk fetched for one of
/// them is therefore cached for both.
#[derive(Debug)]
pub(crate) struct Segments {
    backend: Arc<Backend>,
    known: Mutex<HashMap<SegmentId, Weak<Segment>>>,
}

impl Segments {
    pub(crate) fn new(backend: Arc<Backend>) -> Self {
        Self {
            backend,
            known: Mutex::default(),
        }
    }

    /// Returns the services that the segments share.
    pub(crate) fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Returns the readers that wait for the network.
    pub(crate) fn readers(&self) -> &Waiting {
        &self.backend.readers
    }

    /// Returns the segment that `record` describes, and makes it fetch from `location`.
    ///
    /// If a known segment has the same id but other lengths, the two archives contradict each
    /// other. The new record then gets a separate [`Segment`], so that the known one keeps its
    /// length. The cache file belongs to the one that opens it first; the other is read uncached.
    pub(crate) fn intern(&self, record: &TocSegment, location: SegmentLocation) -> Arc<Segment> {
        let mut known = self.known.lock();
        let segment = known.get(&record.id).and_then(Weak::upgrade);
        match segment {
            Some(segment) if has_same_lengths(segment.record(), record) => {
                segment.move_to(location);
                segment
            }
            Some(_) => {
                warn!(
                    segment = %record.id,
                    "Two archives give different lengths for segment {}", record.id
                );
                // A segment's id covers its table and chunks, not the size of the file in it:
                // only the TOC gives that. A false size must not cut a file that is being read.
                self.new_segment(record, location)
            }
            None => {
                let segment = self.new_segment(record, location);
                known.insert(record.id, Arc::downgrade(&segment));
                // Dead entries are removed now and then, so that an insertion costs no full scan.
                if known.len().is_multiple_of(4096) {
                    known.retain(|_, segment| segment.strong_count() > 0);
                }
                segment
            }
        }
    }

    fn new_segment(&self, record: &TocSegment, location: SegmentLocation) -> Arc<Segment> {
        let backend = Arc::clone(&self.backend);
        Arc::new(Segment::new(record.clone(), location, backend))
    }

    /// Evicts segments whenever the cache exceeds its limit, until the mount ends.
    pub(crate) async fn keep_within_limit(self: Arc<Self>) {
        let (cache, tasks) = (&self.backend.cache, &self.backend.tasks);
        let mut idle_rounds = 0_u64;
        loop {
            let grew = tokio::time::timeout(FORGETTING_INTERVAL, cache.grew());
            let Some(grew) = tasks.until_end(grew).await else {
                return;
            };
            idle_rounds = if grew.is_ok() { 0 } else { idle_rounds + 1 };
            // Another mount may have been killed after it filled the cache, and nothing else tells
            // this one. It counts a cache in which it stores nothing ever more seldom, because that
            // looks at all files.
            let counts = grew.is_ok() || idle_rounds.is_power_of_two();
            let segments = Arc::clone(&self);
            let work = tokio::task::spawn_blocking(move || {
                if counts {
                    segments.evict();
                }
                segments.forget_evicted();
            });
            work.await.ok();
            // Otherwise at once: within a pause, a fast line fills the cache far beyond its limit.
            if cache.is_over_limit() {
                tasks.until_end(sleep(EVICTION_INTERVAL)).await;
            }
        }
    }

    /// Evicts the least recently used segments from the cache. Blocks on the disk.
    pub(crate) fn evict(&self) {
        let cache = &self.backend.cache;
        let alive = self.alive();
        // The cache evicts by the times that it knows. Reads only note theirs in memory.
        for segment in &alive {
            segment.save_use();
        }
        // The kernel reads these files itself, so nothing notes their use. And while they are open,
        // eviction would free no space.
        let in_use = alive.iter().filter(|segment| segment.is_passed_through());
        let in_use = in_use.map(|segment| segment.record().id).collect();
        match cache.evict(&in_use) {
            Ok(evicted) if evicted.is_empty() => {}
            Ok(evicted) => {
                debug!(
                    segments = evicted.len(),
                    "Evicted {} segments",
                    evicted.len()
                );
                let is_evicted = |segment: &Arc<Segment>| evicted.contains(&segment.record().id);
                for segment in self.alive().into_iter().filter(is_evicted) {
                    segment.forget_files();
                }
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "Can't evict segments from the cache"
            ),
        }
    }

    /// Closes files that another mount on the same cache has evicted. Until then they take space
    /// that no mount counts, and readers here find chunks that a restarted mount wouldn't have.
    fn forget_evicted(&self) {
        for segment in self.alive() {
            if segment.is_evicted() {
                segment.forget_files();
            }
        }
    }

    fn alive(&self) -> Vec<Arc<Segment>> {
        let known = self.known.lock();
        known.values().filter_map(Weak::upgrade).collect()
    }
}

/// Returns whether two records of a segment agree on its lengths. Its path and time may differ,
/// because two files can have the same bytes.
fn has_same_lengths(one: &TocSegment, other: &TocSegment) -> bool {
    let lens = |record: &TocSegment| {
        (
            record.stored_len,
            record.table_len,
            record.content_len,
            record.file.as_ref().map(|file| file.size),
        )
    };
    lens(one) == lens(other)
}
