//! Reading content of a segment from the cache, after fetching the chunks that are missing.
//!
//! Many readers may miss one chunk at the same time. Under the lock of the segment's state, the
//! first of them *claims* the chunk and a window around it, and starts a request. The others see
//! the claim and wait for progress. The request runs in a task of its own, so it goes on when the
//! reader that started it gives up.

use std::ops::Range;
use std::sync::Arc;

use cachewfs_format::SegmentTable;

use super::retry::Retry;
use super::window::SHARE_OF_CACHE;
use super::{Segment, transfer};
use crate::cache::SegmentFile;
use crate::fetch::FetchError;
use crate::readable_bytes;
use crate::traffic::Purpose;

/// Why the content of a segment can't be read.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// A chunk or a table can't be fetched.
    #[error("can't fetch the content")]
    Fetch(#[source] Arc<FetchError>),
    /// Reading or writing a file of the cache failed.
    #[error("can't use the cache")]
    Cache(#[source] Arc<std::io::Error>),
    /// The cache is too small for the segments to be pinned or fetched.
    #[error(
        "not enough room in the cache: {} needed, {} available beside pinned repositories; \
         mount with a larger cache_size, or unpin some",
        readable_bytes(*needed_bytes),
        readable_bytes(*room_bytes)
    )]
    NoRoom {
        /// The bytes that the segments take on disk.
        needed_bytes: u64,
        /// The bytes that the cache has for them.
        room_bytes: u64,
    },
    /// A chunk arrived, and could not be written to the cache.
    #[error("the cache can't be written")]
    NotKept(#[source] Arc<std::io::Error>),
    /// Chunks arrived, and were evicted before all were there.
    #[error("the cache evicted some of the bytes while others arrived: raise cache_size")]
    Evicted,
    /// Two parts of an archive contradict each other.
    #[error("the archive contradicts itself: {what}")]
    Contradiction {
        /// The two parts, and the difference.
        what: &'static str,
    },
}

impl From<FetchError> for ReadError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(Arc::new(error))
    }
}

impl Segment {
    /// Reads `range` of the content; the part beyond the end is ignored. Fetches the missing
    /// chunks first. If the caller drops the future, requests in flight go on.
    ///
    /// A reader waits at most `read_timeout`, for the table and all chunks together, and less if
    /// the daemons are silent.
    pub(crate) async fn read(
        self: &Arc<Self>,
        range: Range<u64>,
        purpose: Purpose,
    ) -> Result<Vec<u8>, ReadError> {
        self.note_use();
        let range = range.start..range.end.min(self.len());
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let reading = self.read_unlimited(range.clone(), purpose);
        if purpose == Purpose::Background {
            return reading.await;
        }
        let limited = Retry::new(self, purpose).limit(reading).await;
        limited.unwrap_or_else(|error| Err(self.note_timeout(range, error)))
    }

    /// Notes that a read of `range` timed out, and returns its error.
    fn note_timeout(&self, range: Range<u64>, error: FetchError) -> ReadError {
        let error = ReadError::from(error);
        let table = self.cached_table();
        let mut state = self.state.lock();
        match table {
            Some(table) => state.failures.note(table.chunks_of(range), error.clone()),
            None => state.failures.note_table(error.clone()),
        }
        error
    }

    async fn read_unlimited(
        self: &Arc<Self>,
        range: Range<u64>,
        purpose: Purpose,
    ) -> Result<Vec<u8>, ReadError> {
        let table = self.table(purpose).await?;
        let mut file: Option<Arc<SegmentFile>> = None;
        for index in table.chunks_of(range.clone()) {
            let found = self.fetch_chunk(&table, index, purpose).await?;
            // A cache that fails is not a reason to fail the read: the bytes then come through
            // memory. So they do if the segment was evicted, and the chunks are in two files.
            match (found, &file) {
                (Some(found), Some(file)) if Arc::ptr_eq(&found, file) => {}
                (Some(found), None) => file = Some(found),
                _ => return self.read_uncached(&table, range, purpose).await,
            }
        }
        let read = file.map_or(Ok(Vec::new()), |file| file.read(range));
        read.map_err(|error| ReadError::Cache(Arc::new(error)))
    }

    /// Fetches the missing chunks of `range` of the content, window by window. Does nothing if
    /// the cache files can't be opened.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        range: Range<u64>,
        purpose: Purpose,
    ) -> Result<(), ReadError> {
        let table = self.table(purpose).await?;
        for index in table.chunks_of(range) {
            self.fetch_chunk(&table, index, purpose).await?;
        }
        Ok(())
    }

    /// Fetches the missing chunks of `range` of the content in parallel, without a window around
    /// them.
    pub(crate) async fn fetch_exactly(
        self: &Arc<Self>,
        range: Range<u64>,
    ) -> Result<(), ReadError> {
        let purpose = Purpose::Background;
        let table = self.table(purpose).await?;
        let Some(file) = self.file(&table) else {
            return Ok(());
        };
        let chunks = table.chunks_of(range);
        for window in self.claim_exactly(&table, &file, chunks.clone()) {
            // Waited for below, chunk by chunk.
            drop(transfer::start(self, &table, window, purpose));
        }
        // Waits for the requests just started, and for those of other readers.
        for index in chunks {
            self.fetch_chunk(&table, index, purpose).await?;
        }
        Ok(())
    }

    /// Claims the chunks of `chunks` that are missing and not in flight. Returns them as runs of
    /// neighbours.
    fn claim_exactly(
        &self,
        table: &SegmentTable,
        file: &SegmentFile,
        chunks: Range<usize>,
    ) -> Vec<Range<usize>> {
        let mut state = self.state.lock();
        let mut windows: Vec<Range<usize>> = Vec::new();
        for index in chunks {
            let content = table.content_range(index).unwrap_or_default();
            if file.is_ready(index, &content) || state.is_in_flight(index) {
                continue;
            }
            state.in_flight.insert(index);
            match windows.last_mut() {
                Some(window) if window.end == index => window.end += 1,
                _ => windows.push(index..index + 1),
            }
        }
        windows
    }

    /// Waits until chunk `index` is in the cache, and requests it if no other reader has. Returns
    /// the file that has it.
    ///
    /// Returns `None` if the cache can't keep the chunk: its files can't be opened or written, or
    /// eviction took the chunk at once. It may then be in the overflow, and the next call in the
    /// background tries to write it again.
    async fn fetch_chunk(
        self: &Arc<Self>,
        table: &Arc<SegmentTable>,
        index: usize,
        purpose: Purpose,
    ) -> Result<Option<Arc<SegmentFile>>, ReadError> {
        let content = table.content_range(index).unwrap_or_default();
        if let Some(file) = self.file(table)
            && file.is_ready(index, &content)
        {
            return Ok(Some(file));
        }
        if let Some(error) = self.state.lock().failures.of(index) {
            return Err(error);
        }
        let _waiting = (purpose == Purpose::Demand).then(|| self.backend.count_waiting_reader());
        let mut own_request: Option<transfer::Outcome> = None;
        loop {
            // Subscribes before it checks the chunk. A chunk that arrives after the check then
            // changes `progress`, so no wake-up is lost.
            let mut progress = self.progress.subscribe();
            progress.mark_unchanged();
            // In each round, because eviction replaces it.
            let Some(file) = self.file(table) else {
                return Ok(None);
            };
            if file.is_ready(index, &content) {
                return Ok(Some(file));
            }
            if let Some(chunk) = self.backend.overflow.get(self.record().id, index) {
                // The disk may have room again. A reader doesn't try: it has the bytes.
                let is_stored = purpose == Purpose::Background
                    && transfer::store_chunk(self, (&file, content.start), index, &chunk).is_ok();
                return Ok(is_stored.then_some(file));
            }
            match self.claim(table, &file, index, purpose) {
                Claim::InFlight => {}
                Claim::Failed(error) => return Err(error),
                Claim::Window(window) => {
                    if let Some(outcome) = &own_request {
                        // This reader's own request has ended without the chunk, and it retried
                        // as long as that made sense. Another one would only double the wait.
                        transfer::release(self, window);
                        // A request that succeeded leaves the chunk absent only if the cache
                        // evicted it at once.
                        return outcome.get().map_or(Ok(None), |error| Err(error.clone()));
                    }
                    own_request = Some(transfer::start(self, table, window, purpose));
                }
            }
            if progress.changed().await.is_err() {
                return Err(FetchError::Ending.into());
            }
        }
    }

    /// Claims chunk `index` and a window around it, unless the chunk is already in flight.
    fn claim(
        &self,
        table: &SegmentTable,
        file: &SegmentFile,
        index: usize,
        purpose: Purpose,
    ) -> Claim {
        // The lock is held from the check to the insertion: of readers that race for a chunk,
        // exactly one gets the window.
        let mut state = self.state.lock();
        if state.is_in_flight(index) {
            return Claim::InFlight;
        }
        if let Some(error) = state.failures.of(index) {
            return Claim::Failed(error);
        }
        let wanted = state
            .history
            .next_window_len(index, self.density(), purpose)
            .min(self.backend.cache.max_bytes() / SHARE_OF_CACHE);
        let is_missing = |at: usize| {
            !state.in_flight.contains(&at)
                && table
                    .content_range(at)
                    .is_some_and(|content| !file.is_ready(at, &content))
        };
        let lens = |at: usize| table.chunks().get(at).map(super::window::weight);
        let window = super::window::window_around(index, wanted, self.density(), lens, is_missing);
        state.in_flight.extend(window.clone());
        state.history.note_window(&window);
        Claim::Window(window)
    }

    /// Reads `range` chunk by chunk through memory, because the cache can't store it.
    async fn read_uncached(
        self: &Arc<Self>,
        table: &Arc<SegmentTable>,
        range: Range<u64>,
        purpose: Purpose,
    ) -> Result<Vec<u8>, ReadError> {
        let mut read = Vec::new();
        for index in table.chunks_of(range.clone()) {
            let chunk = table.content_range(index).unwrap_or_default();
            let content = self.chunk_uncached(table, index, purpose).await?;
            let from = range.start.saturating_sub(chunk.start);
            let to = range.end.min(chunk.end).saturating_sub(chunk.start);
            let part = usize::try_from(from).unwrap_or(usize::MAX)
                ..usize::try_from(to).unwrap_or(usize::MAX);
            read.extend_from_slice(content.get(part).unwrap_or_default());
        }
        Ok(read)
    }

    async fn chunk_uncached(
        self: &Arc<Self>,
        table: &Arc<SegmentTable>,
        index: usize,
        purpose: Purpose,
    ) -> Result<Arc<Vec<u8>>, ReadError> {
        let id = self.record().id;
        if let Some(content) = self.backend.overflow.get(id, index) {
            return Ok(content);
        }
        let content = table.content_range(index).unwrap_or_default();
        // Only some chunks of the range may be missing from the cache.
        if let Some(file) = self.opened_file()
            && file.is_ready(index, &content)
            && let Ok(content) = file.read(content.clone())
        {
            return Ok(Arc::new(content));
        }
        if let Some(error) = self.state.lock().failures.of(index) {
            return Err(error);
        }
        let _waiting = (purpose == Purpose::Demand).then(|| self.backend.count_waiting_reader());
        let stored = table.stored_range(index).unwrap_or_default();
        let chunk = table
            .chunks()
            .get(index)
            .copied()
            .ok_or(ReadError::Contradiction {
                what: "a segment's table has fewer chunks than its content",
            })?;
        let start = content.start;
        let content = transfer::fetch_verified(self, stored, purpose, |bytes| {
            let content = cachewfs_format::decode_chunk(&chunk, bytes)?;
            self.record().check_padding(start, &content)?;
            Ok(content)
        })
        .await
        .inspect_err(|error| {
            let mut state = self.state.lock();
            state.failures.note(index..index + 1, error.clone());
        })?;
        self.backend.overflow.insert(id, index, content.clone());
        Ok(Arc::new(content))
    }
}

/// The next step of a reader that misses a chunk.
enum Claim {
    /// Wait: a request for the chunk is in flight.
    InFlight,
    /// Give up: a request for the chunk has just failed.
    Failed(ReadError),
    /// Request these chunks, which the reader has claimed.
    Window(Range<usize>),
}
