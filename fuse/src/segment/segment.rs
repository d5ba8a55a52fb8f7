//! One segment: its record in the TOC, its table, and where to fetch it.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use cachewfs_format::{RepoName, SegmentTable, TocSegment};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, watch};

use super::failures::RecentFailures;
use super::opens::SegmentOpens;
use super::window::{Density, MAX_RATIO, ReadHistory};
use super::{Backend, ReadError};
use crate::cache::{MarkedBytes, SegmentFile};

/// At most this many stored bytes are fetched whole, with the table, in one request. A separate
/// request for the table would cost a round trip and save little.
const WHOLE_LEN: u64 = 1 << 20;
/// At most this many bytes of content are fetched whole. Without this limit, a hostile segment of
/// few stored bytes could decompress to gigabytes.
const WHOLE_CONTENT_LEN: u64 = WHOLE_LEN * MAX_RATIO;

/// The archive and the offset from which a segment can be fetched.
#[derive(Clone, Debug)]
pub(crate) struct SegmentLocation {
    /// The repository of the archive.
    pub repo: RepoName,
    /// The path of the immutable URL of an archive that has the segment.
    pub path: Arc<str>,
    /// The first byte of the segment, counted from the start of that archive.
    pub offset: u64,
}

/// A segment, some or all of whose chunks are in the cache.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(super) record: TocSegment,
    pub(super) backend: Arc<Backend>,
    location: Mutex<SegmentLocation>,
    pub(super) table: OnceCell<Arc<SegmentTable>>,
    /// The open files of the cache. `Backend::cache` keeps them open, and closes the least recently
    /// used ones. A user of a file keeps it, so a segment never has two.
    pub(super) file: Mutex<Weak<SegmentFile>>,
    /// The cached bytes that the disk showed when the files were not open.
    pub(super) marked_bytes: MarkedBytes,
    /// The time of the last use in seconds since the epoch, or 0 if the cache already knows it.
    pub(super) used_at: AtomicU64,
    pub(super) state: Mutex<FetchState>,
    /// A counter that changes whenever a chunk arrives or a request ends. A change wakes all
    /// waiters, and each checks again whether its chunk is there.
    pub(super) progress: watch::Sender<u64>,
    /// The number of times that the kernel has the segment open, and in which mode.
    pub(crate) opens: Mutex<SegmentOpens>,
}

/// The requests in flight for a segment, and the reads so far.
#[derive(Debug, Default)]
pub(super) struct FetchState {
    /// The indexes of chunks that a request has claimed and not delivered yet.
    pub(super) in_flight: HashSet<usize>,
    /// Whether a request for the whole segment has claimed it.
    is_whole_in_flight: bool,
    pub(super) history: ReadHistory,
    pub(super) failures: RecentFailures,
    /// The path of the archive from which wrong bytes arrived last.
    pub(super) broken: Option<Arc<str>>,
}

impl FetchState {
    /// Returns whether a request for chunk `index` is in flight.
    pub(super) fn is_in_flight(&self, index: usize) -> bool {
        self.is_whole_in_flight || self.in_flight.contains(&index)
    }

    fn is_idle(&self) -> bool {
        !self.is_whole_in_flight && self.in_flight.is_empty()
    }
}

/// A claim on all chunks of a segment. Dropping it wakes all waiters of the segment.
pub(super) struct WholeClaim<'a>(&'a Segment);

impl WholeClaim<'_> {
    /// Notes that the request failed. The waiters get the error when the claim is dropped.
    pub(super) fn fail(&self, error: &ReadError) {
        self.0.state.lock().failures.note_table(error.clone());
    }
}

impl Drop for WholeClaim<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_whole_in_flight = false;
        self.0.wake_waiters();
    }
}

impl Segment {
    pub(super) fn new(
        record: TocSegment,
        location: SegmentLocation,
        backend: Arc<Backend>,
    ) -> Self {
        Self {
            record,
            backend,
            location: Mutex::new(location),
            table: OnceCell::new(),
            file: Mutex::default(),
            marked_bytes: MarkedBytes::default(),
            used_at: AtomicU64::new(0),
            state: Mutex::default(),
            progress: watch::Sender::new(0),
            opens: Mutex::default(),
        }
    }

    /// Returns the record of the segment in the TOC that named it first.
    pub(crate) fn record(&self) -> &TocSegment {
        &self.record
    }

    /// Returns the places that its chunks come from and go to.
    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Returns how many bytes of content the mount keeps. If the segment is the data of one file,
    /// this is the file's size, without tar padding.
    pub(crate) fn len(&self) -> u64 {
        self.record
            .file
            .as_ref()
            .map_or(self.record.content_len, |file| file.size)
    }

    /// Returns the location in the most recently loaded archive that has the segment.
    pub(crate) fn location(&self) -> SegmentLocation {
        self.location.lock().clone()
    }

    /// Makes later requests fetch the segment from `location`.
    pub(super) fn move_to(&self, location: SegmentLocation) {
        *self.location.lock() = location;
    }

    /// Returns whether one request fetches the whole segment, with its table.
    pub(crate) fn is_fetched_whole(&self) -> bool {
        self.record.stored_len <= WHOLE_LEN && self.record.content_len <= WHOLE_CONTENT_LEN
    }

    /// Returns how much of the segment readers need in the end, as far as its role tells.
    pub(super) fn density(&self) -> Density {
        if self.record.role.is_read_whole() {
            Density::Dense
        } else {
            Density::Sparse
        }
    }

    /// Claims all chunks, or returns `None` if a request for any of them is in flight.
    pub(super) fn claim_whole(&self) -> Option<WholeClaim<'_>> {
        let mut state = self.state.lock();
        if !state.is_idle() {
            return None;
        }
        state.is_whole_in_flight = true;
        Some(WholeClaim(self))
    }

    /// Waits until no request for the segment is in flight.
    pub(super) async fn until_idle(&self) {
        let mut progress = self.progress.subscribe();
        loop {
            // Before the check: a request that ends after it then changes `progress`.
            progress.mark_unchanged();
            if self.state.lock().is_idle() || progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Makes all waiters of the segment look again whether their chunks are there.
    pub(super) fn wake_waiters(&self) {
        self.progress
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Returns the table from memory or from the cache.
    pub(super) fn cached_table(&self) -> Option<Arc<SegmentTable>> {
        if let Some(table) = self.table.get() {
            return Some(Arc::clone(table));
        }
        // The cached table is verified against the segment's id only. Its lengths must also be
        // those that this snapshot's TOC gives, because the file's layout follows from them.
        let table = self.backend.cache.table(self.record.id)?;
        self.record.check_table(&table).ok()?;
        Some(Arc::new(table))
    }
}
