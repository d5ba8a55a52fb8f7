//! A segment, its table and its files.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use cachewfs_format::{RepoName, Role, SegmentTable, TocSegment};
use tokio::sync::{OnceCell, watch};
use tracing::warn;

use super::registry::Backend;
use super::window::{Density, MAX_RATIO, Window};
use super::{ReadError, transfer};
use crate::cache::SegmentFile;
use crate::fetch::FetchError;
use crate::traffic::Purpose;

/// A segment this small is fetched whole, with its table, in one request: a separate request for
/// the table would cost a round trip and save little.
const WHOLE_LEN: u64 = 1 << 20;
/// … and has no more content than this: a few bytes of zstd can be gigabytes.
const WHOLE_CONTENT_LEN: u64 = WHOLE_LEN * MAX_RATIO;

/// Where a segment can be fetched from.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The repository that it is of.
    pub repo: RepoName,
    /// The path of the immutable URL of an archive that has it.
    pub path: Arc<str>,
    /// In bytes from the start of that archive.
    pub offset: u64,
}

/// A segment of which some chunks are in the cache.
#[derive(Debug)]
pub(crate) struct Segment {
    record: TocSegment,
    pub(super) backend: Arc<Backend>,
    place: Mutex<Place>,
    table: OnceCell<Arc<SegmentTable>>,
    file: Mutex<Option<Arc<SegmentFile>>>,
    /// When it was used last, in seconds since the epoch; 0 for what the cache knows already.
    used_at: AtomicU64,
    pub(super) state: Mutex<State>,
    /// Counts the chunks that came, and the requests that failed: whoever waits looks again.
    pub(super) progress: watch::Sender<u64>,
    /// How many times the kernel has it open, and in which mode.
    pub(crate) opens: Mutex<crate::passthrough::SegmentOpens>,
}

/// What is being fetched.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Chunks that a request is under way for.
    pub(super) in_flight: HashSet<usize>,
    pub(super) window: Window,
    /// Why the last request failed.
    pub(super) failure: Option<ReadError>,
}

impl Segment {
    pub(super) fn new(record: TocSegment, place: Place, backend: Arc<Backend>) -> Self {
        Self {
            record,
            backend,
            place: Mutex::new(place),
            table: OnceCell::new(),
            file: Mutex::default(),
            used_at: AtomicU64::new(0),
            state: Mutex::default(),
            progress: watch::Sender::new(0),
            opens: Mutex::default(),
        }
    }

    /// What the TOC says of it.
    pub(crate) fn record(&self) -> &TocSegment {
        &self.record
    }

    /// Bytes of its content that are kept: those of the file, or all.
    pub(crate) fn len(&self) -> u64 {
        self.record
            .file
            .as_ref()
            .map_or(self.record.content_len, |file| file.size)
    }

    /// Where it is fetched from now.
    pub(crate) fn place(&self) -> Place {
        self.place
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// From now on it is fetched from `place`.
    pub(super) fn move_to(&self, place: Place) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is fetched whole, with its table, in one request.
    pub(super) fn comes_whole(&self) -> bool {
        self.record.stored_len <= WHOLE_LEN && self.record.content_len <= WHOLE_CONTENT_LEN
    }

    /// How much of it its readers come to want.
    pub(super) fn density(&self) -> Density {
        match self.record.role {
            Role::PackIndex | Role::PackReverseIndex | Role::CommitGraph | Role::PackTip => {
                Density::Dense
            }
            _ => Density::Sparse,
        }
    }

    /// The table, if it has been loaded.
    pub(crate) fn loaded_table(&self) -> Option<&Arc<SegmentTable>> {
        self.table.get()
    }

    /// The table: from memory, from the cache, or fetched.
    pub(crate) async fn table(&self, purpose: Purpose) -> Result<Arc<SegmentTable>, ReadError> {
        self.table
            .get_or_try_init(|| self.load_table(purpose))
            .await
            .cloned()
    }

    async fn load_table(&self, purpose: Purpose) -> Result<Arc<SegmentTable>, ReadError> {
        if let Some(table) = self.backend.cache.table(self.record.id)
            && self.record.check_table(&table).is_ok()
        {
            return Ok(Arc::new(table));
        }
        let TocSegment {
            stored_len,
            table_len,
            ..
        } = self.record;
        if self.comes_whole() {
            return transfer::fetch_verified(self, 0..stored_len, purpose, |bytes| {
                self.take_whole(bytes)
            })
            .await;
        }
        let range = stored_len.saturating_sub(u64::from(table_len))..stored_len;
        transfer::fetch_verified(self, range, purpose, |bytes| self.take_table(bytes)).await
    }

    /// Fetches the table and, at the same time, the first chunks.
    pub(crate) async fn fetch_front(&self) -> Result<(), ReadError> {
        let purpose = Purpose::Background;
        let stored_len = self.record.stored_len;
        if self.table.initialized() || self.comes_whole() {
            return self.table(purpose).await.map(drop);
        }
        let len = u64::from(crate::adapter::READ_AHEAD).min(stored_len);
        let front = transfer::fetch_verified(self, 0..len, purpose, |bytes| Ok(bytes.clone()));
        let (front, table) = futures_util::join!(front, self.table(purpose));
        let (front, table) = (front?, table?);
        for index in table.chunks_of(0..len.saturating_mul(MAX_RATIO)) {
            let Ok(stored) = stored_chunk(&table, index, &front) else {
                break;
            };
            transfer::take_chunk(self, &table, index, &stored).map_err(|source| {
                FetchError::Broken {
                    url: self.place().path.to_string(),
                    source,
                }
            })?;
        }
        Ok(())
    }

    /// Verifies and keeps the frame of the table.
    fn take_table(&self, frame: &Bytes) -> Result<Arc<SegmentTable>, cachewfs_format::Error> {
        let table = SegmentTable::decode(self.record.id, frame)?;
        self.record.check_table(&table)?;
        if let Err(error) = self.backend.cache.store_table(self.record.id, frame) {
            warn!(
                error = &error as &dyn std::error::Error,
                "can't keep a segment table"
            );
        }
        Ok(Arc::new(table))
    }

    /// Verifies and keeps a whole segment.
    pub(super) fn take_whole(
        &self,
        stored: &Bytes,
    ) -> Result<Arc<SegmentTable>, cachewfs_format::Error> {
        let short = cachewfs_format::Error::Truncated { section: "segment" };
        let table_len = usize::try_from(self.record.table_len).map_err(|_| short.clone())?;
        let table_at = stored.len().checked_sub(table_len).ok_or(short)?;
        let table = self.take_table(&stored.slice(table_at..))?;
        for index in 0..table.chunks().len() {
            transfer::take_chunk(self, &table, index, &stored_chunk(&table, index, stored)?)?;
        }
        Ok(table)
    }

    /// The files with the content; `None` if the disk won't have them.
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
                    error = &error as &dyn std::error::Error,
                    "can't open a cached segment"
                );
                None
            }
        }
    }

    /// Notes that somebody reads it, or opens it to read.
    pub(crate) fn note_use(&self) {
        let now = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        self.used_at.store(now, Ordering::Relaxed);
    }

    /// Tells the cache when it was used last.
    pub(super) fn save_use(&self) {
        let used_at = self.used_at.swap(0, Ordering::Relaxed);
        if used_at > 0 {
            let used_at = UNIX_EPOCH + Duration::from_secs(used_at);
            self.backend.cache.touch(self.record.id, used_at);
        }
    }

    /// The files with the content, if they have been opened.
    pub(crate) fn opened_file(&self) -> Option<Arc<SegmentFile>> {
        self.file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether all of it is in the cache, and known to be right. Doesn't look at the disk.
    pub(crate) fn is_complete_on_disk(&self) -> bool {
        self.opened_file().is_some_and(|file| file.is_complete())
    }

    /// The files have been evicted: opens new ones at the next read.
    pub(super) fn forget_files(&self) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = self.table.get()
            && file.take().is_some()
        {
            // The table went with them, and costs a request to have again.
            let encoded = table.to_frame();
            let kept = encoded
                .map_err(std::io::Error::other)
                .and_then(|frame| self.backend.cache.store_table(self.record.id, &frame));
            kept.ok();
        }
    }

    /// Bytes of chunks that are in the cache, as stored. Looks at what is known, not at the disk.
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

/// The bytes of chunk `index` in a whole segment.
fn stored_chunk(
    table: &SegmentTable,
    index: usize,
    stored: &Bytes,
) -> Result<Bytes, cachewfs_format::Error> {
    let range = table
        .stored_range(index)
        .unwrap_or(Range { start: 0, end: 0 });
    let place = |at| usize::try_from(at).ok().filter(|&at| at <= stored.len());
    match (place(range.start), place(range.end)) {
        (Some(start), Some(end)) => Ok(stored.slice(start..end)),
        _ => Err(cachewfs_format::Error::Truncated { section: "segment" }),
    }
}
