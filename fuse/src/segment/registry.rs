//! All segments that are in use, each once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use cachewfs_format::{SegmentId, TocSegment};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{Place, Segment};
use crate::cache::{Cache, Overflow};
use crate::fetch::ArchiveSource;
use crate::traffic::Traffic;

/// What segments work with.
#[derive(Debug)]
pub(crate) struct Backend {
    /// Where bytes come from.
    pub source: Arc<dyn ArchiveSource>,
    /// Where they are kept.
    pub cache: Cache,
    /// What the cache has no room for.
    pub overflow: Overflow,
    /// What was asked of the daemons.
    pub traffic: Arc<Traffic>,
    /// How long a request for chunks goes on trying.
    pub read_timeout: Duration,
    /// Owns the requests under way.
    pub tasks: TaskTracker,
    /// Ends them.
    pub ending: CancellationToken,
    /// Readers that wait for the network right now: hydration gives way to them.
    pub waiting_readers: AtomicUsize,
    /// Wakes hydration when no reader waits any more.
    pub no_waiting_reader: Notify,
}

/// How long to wait between two looks for what to evict: where pins take all there is, looking more
/// often wouldn't find more.
const EVICTION_PAUSE: Duration = Duration::from_secs(1);

impl Backend {
    /// Nothing is under way yet.
    pub(crate) fn new(
        source: Arc<dyn ArchiveSource>,
        cache: Cache,
        traffic: Arc<Traffic>,
        read_timeout: Duration,
    ) -> Self {
        Self {
            source,
            cache,
            overflow: Overflow::default(),
            traffic,
            read_timeout,
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
            waiting_readers: AtomicUsize::new(0),
            no_waiting_reader: Notify::new(),
        }
    }

    /// Counts a reader that waits, until the guard is dropped.
    pub(super) fn reader_waits(&self) -> WaitingReader<'_> {
        self.waiting_readers.fetch_add(1, Ordering::AcqRel);
        WaitingReader(self)
    }

    /// Waits until no reader waits for the network.
    pub(crate) async fn readers_are_served(&self) {
        loop {
            let notified = self.no_waiting_reader.notified();
            if self.waiting_readers.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// A reader that waits for the network.
#[derive(Debug)]
pub(super) struct WaitingReader<'a>(&'a Backend);

impl Drop for WaitingReader<'_> {
    fn drop(&mut self) {
        if self.0.waiting_readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.no_waiting_reader.notify_waiters();
        }
    }
}

/// The segments that something shown by the mount consists of.
///
/// A segment that two snapshots share is one [`Segment`]: what one of them fetched, the other has.
#[derive(Debug)]
pub(crate) struct Segments {
    backend: Arc<Backend>,
    known: Mutex<HashMap<SegmentId, Weak<Segment>>>,
}

impl Segments {
    /// No segments yet.
    pub(crate) fn new(backend: Arc<Backend>) -> Self {
        Self {
            backend,
            known: Mutex::default(),
        }
    }

    /// What the segments work with.
    pub(crate) fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// The segment that `record` describes; from now on it is fetched from `place`.
    ///
    /// A record that differs from an earlier one of the same segment isn't believed of that: it
    /// gets a segment of its own, which has no part in the file that the other keeps.
    pub(crate) fn intern(&self, record: &TocSegment, place: Place) -> Arc<Segment> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let segment = known.get(&record.id).and_then(Weak::upgrade);
        match segment {
            Some(segment) if is_alike(segment.record(), record) => {
                segment.move_to(place);
                segment
            }
            Some(_) => {
                warn!(segment = %record.id, "Two archives disagree about segment {}", record.id);
                self.new_segment(record, place)
            }
            None => {
                let segment = self.new_segment(record, place);
                known.insert(record.id, Arc::downgrade(&segment));
                if known.len().is_multiple_of(4096) {
                    known.retain(|_, segment| segment.strong_count() > 0);
                }
                segment
            }
        }
    }

    fn new_segment(&self, record: &TocSegment, place: Place) -> Arc<Segment> {
        let backend = Arc::clone(&self.backend);
        Arc::new(Segment::new(record.clone(), place, backend))
    }

    /// Evicts whenever the cache has grown over its limit, until the mount ends.
    pub(crate) async fn keep_within_limit(self: Arc<Self>) {
        let (cache, ending) = (&self.backend.cache, &self.backend.ending);
        while let Some(()) = ending.run_until_cancelled(cache.over_limit()).await {
            let segments = Arc::clone(&self);
            tokio::task::spawn_blocking(move || segments.evict())
                .await
                .ok();
            ending.run_until_cancelled(sleep(EVICTION_PAUSE)).await;
        }
    }

    /// Makes room in the cache. Blocks on the disk.
    fn evict(&self) {
        let cache = &self.backend.cache;
        for segment in self.alive() {
            segment.save_use();
        }
        match cache.evict() {
            Ok(evicted) => {
                info!(
                    segments = evicted.len(),
                    "Evicted {} segments",
                    evicted.len()
                );
                let is_evicted = |segment: &Arc<Segment>| evicted.contains(&segment.record().id);
                for segment in self.alive().into_iter().filter(is_evicted) {
                    segment.forget_files();
                }
            }
            Err(error) => warn!(error = &error as &dyn std::error::Error, "can't evict"),
        }
    }

    fn alive(&self) -> Vec<Arc<Segment>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().filter_map(Weak::upgrade).collect()
    }
}

/// Whether two archives say the same of a segment that they share. Its path and its time may
/// differ: two files can have the same bytes.
fn is_alike(one: &TocSegment, other: &TocSegment) -> bool {
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
