//! All segments that are in use, each once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use cachewfs_format::{SegmentId, TocSegment};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{Place, Segment};
use crate::cache::{Cache, Overflow};
use crate::fetch::Source;
use crate::traffic::Traffic;

/// What segments work with.
#[derive(Debug)]
pub(crate) struct Backend {
    /// Where bytes come from.
    pub source: Arc<dyn Source>,
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

impl Backend {
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
    pub(crate) fn intern(&self, record: &TocSegment, place: Place) -> Arc<Segment> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(segment) = known.get(&record.id).and_then(Weak::upgrade)
            && segment.record().table_len == record.table_len
            && segment.record().stored_len == record.stored_len
        {
            segment.move_to(place);
            return segment;
        }
        let segment = Arc::new(Segment::new(
            record.clone(),
            place,
            Arc::clone(&self.backend),
        ));
        known.insert(record.id, Arc::downgrade(&segment));
        if known.len().is_multiple_of(4096) {
            known.retain(|_, segment| segment.strong_count() > 0);
        }
        segment
    }

    /// Makes room in the cache if it is over its limit. Blocks on the disk.
    pub(crate) fn evict_if_over_limit(&self) {
        let cache = &self.backend.cache;
        if cache.used_bytes() <= cache.max_bytes() {
            return;
        }
        match cache.evict() {
            Ok(evicted) => {
                info!(
                    segments = evicted.len(),
                    "Evicted {} segments",
                    evicted.len()
                );
                let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                for segment in evicted.iter().filter_map(|id| known.get(id)?.upgrade()) {
                    segment.forget_files();
                }
            }
            Err(error) => warn!(error = &error as &dyn std::error::Error, "can't evict"),
        }
    }
}
