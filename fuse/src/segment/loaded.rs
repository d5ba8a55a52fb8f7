//! One segment: its record in the TOC, its table, its files in the cache, and where to fetch it.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use cachewfs_format::{RepoName, Role, SegmentTable, TocSegment};
use tokio::sync::{OnceCell, watch};
use tracing::warn;

use super::failures::RecentFailures;
use super::registry::Backend;
use super::window::{Density, MAX_RATIO, ReadHistory};
use super::{ReadError, transfer};
use crate::cache::SegmentFile;
use crate::fetch::FetchError;
use crate::traffic::Purpose;

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
    record: TocSegment,
    pub(super) backend: Arc<Backend>,
    location: Mutex<SegmentLocation>,
    table: OnceCell<Arc<SegmentTable>>,
    file: Mutex<Option<Arc<SegmentFile>>>,
    /// The time of the last use in seconds since the epoch, or 0 if the cache already knows it.
    used_at: AtomicU64,
    pub(super) state: Mutex<FetchState>,
    /// A counter that changes whenever a chunk arrives or a request ends. A change wakes all
    /// waiters, and each checks again whether its chunk is there.
    pub(super) progress: watch::Sender<u64>,
    /// The number of times that the kernel has the segment open, and in which mode.
    pub(crate) opens: Mutex<crate::passthrough::SegmentOpens>,
}

/// The requests in flight for a segment, and the reads so far.
#[derive(Debug, Default)]
pub(super) struct FetchState {
    /// The indexes of chunks that a request has claimed and not delivered yet.
    pub(super) in_flight: HashSet<usize>,
    pub(super) history: ReadHistory,
    pub(super) failures: RecentFailures,
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
        self.location
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes later requests fetch the segment from `location`.
    pub(super) fn move_to(&self, location: SegmentLocation) {
        *self.location.lock().unwrap_or_else(PoisonError::into_inner) = location;
    }

    pub(super) fn state(&self) -> MutexGuard<'_, FetchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether one request fetches the whole segment, with its table.
    pub(super) fn is_fetched_whole(&self) -> bool {
        self.record.stored_len <= WHOLE_LEN && self.record.content_len <= WHOLE_CONTENT_LEN
    }

    /// Returns how much of the segment readers need in the end, as far as its role tells.
    pub(super) fn density(&self) -> Density {
        match self.record.role {
            Role::PackIndex | Role::PackReverseIndex | Role::CommitGraph | Role::PackTip => {
                Density::Dense
            }
            _ => Density::Sparse,
        }
    }

    /// Returns the table, or `None` if it has not been loaded yet.
    pub(crate) fn loaded_table(&self) -> Option<&Arc<SegmentTable>> {
        self.table.get()
    }

    /// Returns the table from memory, from the cache, or from a daemon. Concurrent callers share
    /// one request.
    pub(crate) async fn table(&self, purpose: Purpose) -> Result<Arc<SegmentTable>, ReadError> {
        self.table
            .get_or_try_init(|| self.load_table(purpose))
            .await
            .cloned()
    }

    async fn load_table(&self, purpose: Purpose) -> Result<Arc<SegmentTable>, ReadError> {
        // The cached table is verified against the segment's id only. Its lengths must also be
        // those that this snapshot's TOC gives, because the file's layout follows from them.
        if let Some(table) = self.backend.cache.table(self.record.id)
            && self.record.check_table(&table).is_ok()
        {
            return Ok(Arc::new(table));
        }
        if let Some(error) = self.state().failures.of_table() {
            return Err(error);
        }
        let TocSegment {
            stored_len,
            table_len,
            ..
        } = self.record;
        let fetched = if self.is_fetched_whole() {
            let range = 0..stored_len;
            transfer::fetch_verified(self, range, purpose, |bytes| self.accept_whole(bytes)).await
        } else {
            let range = stored_len.saturating_sub(u64::from(table_len))..stored_len;
            transfer::fetch_verified(self, range, purpose, |bytes| self.accept_table(bytes)).await
        };
        fetched.inspect_err(|error| self.state().failures.note_table(error.clone()))
    }

    /// Fetches the table and, in parallel, the first chunks.
    pub(crate) async fn fetch_front(&self) -> Result<(), ReadError> {
        let purpose = Purpose::Background;
        let stored_len = self.record.stored_len;
        if self.table.initialized() || self.is_fetched_whole() {
            return self.table(purpose).await.map(drop);
        }
        let len = u64::from(crate::adapter::READ_AHEAD).min(stored_len);
        let front = transfer::fetch_verified(self, 0..len, purpose, |bytes| Ok(bytes.clone()));
        let (front, table) = futures_util::join!(front, self.table(purpose));
        let (front, table) = (front?, table?);
        // The range limits how much is decompressed: `front` can hold many chunks of a bomb.
        for index in table.chunks_of(0..len.saturating_mul(MAX_RATIO)) {
            let Ok(stored) = stored_chunk(&table, index, &front) else {
                // The front ends inside this chunk.
                break;
            };
            transfer::accept_chunk(self, &table, index, &stored).map_err(|source| {
                FetchError::Broken {
                    url: self.location().path.to_string(),
                    source,
                }
            })?;
        }
        Ok(())
    }

    /// Verifies the frame of the table and writes it to the cache.
    fn accept_table(&self, frame: &Bytes) -> Result<Arc<SegmentTable>, cachewfs_format::Error> {
        let table = SegmentTable::decode(self.record.id, frame)?;
        self.record.check_table(&table)?;
        if let Err(error) = self.backend.cache.store_table(self.record.id, frame) {
            warn!(
                error = &error as &dyn std::error::Error,
                "Can't write a segment table to the cache"
            );
        }
        Ok(Arc::new(table))
    }

    /// Verifies a whole segment and writes it to the cache.
    pub(super) fn accept_whole(
        &self,
        stored: &Bytes,
    ) -> Result<Arc<SegmentTable>, cachewfs_format::Error> {
        let short = cachewfs_format::Error::Truncated { section: "segment" };
        let table_len = usize::try_from(self.record.table_len).map_err(|_| short.clone())?;
        let table_at = stored.len().checked_sub(table_len).ok_or(short)?;
        let table = self.accept_table(&stored.slice(table_at..))?;
        for index in 0..table.chunks().len() {
            transfer::accept_chunk(self, &table, index, &stored_chunk(&table, index, stored)?)?;
        }
        Ok(table)
    }

    /// Returns the cache files of the segment, opening them if need be. Returns `None` if they
    /// can't be opened; the segment is then read uncached.
    pub(crate) fn file(&self, table: &SegmentTable) -> Option<Arc<SegmentFile>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*file {
            return Some(Arc::clone(file));
        }
        let cache = &self.backend.cache;
        let (id, len) = (self.record.id, self.len());
        match cache.open_segment(id, table, self.record.table_len, len) {
            Ok(opened) => Some(Arc::clone(file.insert(Arc::new(opened)))),
            Err(error) => {
                warn!(
                    segment = %id,
                    error = &error as &dyn std::error::Error,
                    "Can't open the cache files of segment {id}: reading it uncached"
                );
                None
            }
        }
    }

    /// Notes that a reader reads or opens the segment now.
    pub(crate) fn note_use(&self) {
        let now = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        self.used_at.store(now, Ordering::Relaxed);
    }

    /// Writes the time of the last use to the cache, where eviction looks at it.
    pub(super) fn save_use(&self) {
        let used_at = self.used_at.swap(0, Ordering::Relaxed);
        if used_at > 0 {
            let used_at = UNIX_EPOCH + Duration::from_secs(used_at);
            self.backend.cache.touch(self.record.id, used_at);
        }
    }

    /// Returns the cache files, or `None` if they have not been opened yet.
    pub(crate) fn opened_file(&self) -> Option<Arc<SegmentFile>> {
        self.file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Returns whether all chunks are known to be in the cache and verified. Doesn't look at the
    /// disk.
    pub(crate) fn is_complete_on_disk(&self) -> bool {
        self.opened_file().is_some_and(|file| file.is_complete())
    }

    /// Closes the cache files after they were evicted. The next read opens new ones.
    pub(super) fn forget_files(&self) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = self.table.get()
            && file.take().is_some()
        {
            // The table was evicted with the content. Writing it again is cheap; a restarted
            // mount would have to fetch it.
            let encoded = table.to_frame();
            let kept = encoded
                .map_err(std::io::Error::other)
                .and_then(|frame| self.backend.cache.store_table(self.record.id, &frame));
            kept.ok();
        }
    }

    /// Returns how many stored bytes the cached chunks have. Uses the state in memory, not the
    /// disk, so chunks of a segment that was not opened yet don't count.
    pub(crate) fn cached_bytes(&self) -> u64 {
        let Some(table) = self.table.get() else {
            return 0;
        };
        let Some(file) = self.opened_file() else {
            return 0;
        };
        if file.is_complete() {
            return self.record.stored_len;
        }
        (0..table.chunks().len())
            .filter(|&index| file.is_marked(index))
            .filter_map(|index| table.stored_range(index))
            .map(|range| range.end - range.start)
            .sum()
    }
}

/// Returns the stored bytes of chunk `index`. `stored` begins where the segment begins.
fn stored_chunk(
    table: &SegmentTable,
    index: usize,
    stored: &Bytes,
) -> Result<Bytes, cachewfs_format::Error> {
    let range = table
        .stored_range(index)
        .unwrap_or(Range { start: 0, end: 0 });
    let offset = |at| usize::try_from(at).ok().filter(|&at| at <= stored.len());
    match (offset(range.start), offset(range.end)) {
        (Some(start), Some(end)) => Ok(stored.slice(start..end)),
        _ => Err(cachewfs_format::Error::Truncated { section: "segment" }),
    }
}
