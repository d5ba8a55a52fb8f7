//! Reading content of a segment from the cache, after fetching the chunks that are missing.
//!
//! Many readers may miss one chunk at the same time. Under the lock of the segment's state, the
//! first of them *claims* the chunk and a window around it, and starts a request. The others see
//! the claim and wait for progress. The request runs in a task of its own, so it goes on when the
//! reader that started it gives up.

use std::ops::Range;
use std::sync::Arc;

use cachewfs_format::{PlacedChunk, decode_chunk};

use super::reading::Reading;
use super::retry::Retry;
use super::window::{SHARE_OF_CACHE, weight, window_around};
use super::{ReadError, Segment, transfer};
use crate::cache::SegmentFile;
use crate::fetch::FetchError;
use crate::traffic::Purpose;
use crate::waiting::WaitingGuard;

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
        let reading = async {
            let reading = Reading::begin(self, purpose).await?;
            reading.read(range.clone()).await
        };
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

    /// Fetches the missing chunks of `range` of the content, window by window. Does nothing if
    /// the cache files can't be opened.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        range: Range<u64>,
        purpose: Purpose,
    ) -> Result<(), ReadError> {
        let reading = Reading::begin(self, purpose).await?;
        for chunk in reading.table.chunks_in(range) {
            reading.fetch_chunk(&chunk).await?;
        }
        Ok(())
    }

    /// Fetches the missing chunks of `range` of the content in parallel, without a window around
    /// them.
    pub(crate) async fn fetch_exactly(
        self: &Arc<Self>,
        range: Range<u64>,
    ) -> Result<(), ReadError> {
        let reading = Reading::begin(self, Purpose::Background).await?;
        let Some(file) = reading.file() else {
            return Ok(());
        };
        let chunks: Vec<_> = reading.table.chunks_in(range).collect();
        for window in self.claim_exactly(&file, &chunks) {
            // Waited for below, chunk by chunk.
            drop(transfer::start(&reading, window));
        }
        // Waits for the requests just started, and for those of other readers.
        for chunk in &chunks {
            reading.fetch_chunk(chunk).await?;
        }
        Ok(())
    }

    /// Claims the chunks of `chunks` that are missing and not in flight. Returns them as runs of
    /// neighbours.
    fn claim_exactly(&self, file: &SegmentFile, chunks: &[PlacedChunk]) -> Vec<Range<usize>> {
        let mut state = self.state.lock();
        let mut windows: Vec<Range<usize>> = Vec::new();
        for PlacedChunk { index, content, .. } in chunks {
            let index = *index;
            if file.is_ready(index, content) || state.is_in_flight(index) {
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
}

impl Reading {
    /// Reads `range` of the content, which doesn't end after it.
    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, ReadError> {
        let mut file: Option<Arc<SegmentFile>> = None;
        for chunk in self.table.chunks_in(range.clone()) {
            let found = self.fetch_chunk(&chunk).await?;
            // A cache that fails is not a reason to fail the read: the bytes then come through
            // memory. So they do if the segment was evicted, and the chunks are in two files.
            match (found, &file) {
                (Some(found), Some(file)) if Arc::ptr_eq(&found, file) => {}
                (Some(found), None) => file = Some(found),
                _ => return self.read_uncached(range).await,
            }
        }
        let read = file.map_or(Ok(Vec::new()), |file| file.read(range));
        read.map_err(|error| ReadError::Cache(Arc::new(error)))
    }

    /// Waits until a chunk is in the cache, and requests it if no other reader has. Returns the
    /// file that has it.
    ///
    /// Returns `None` if the cache can't keep the chunk: its files can't be opened or written, or
    /// eviction took the chunk at once. It may then be in the overflow, and the next call in the
    /// background tries to write it again.
    async fn fetch_chunk(
        &self,
        chunk: &PlacedChunk,
    ) -> Result<Option<Arc<SegmentFile>>, ReadError> {
        let (segment, index) = (&self.segment, chunk.index);
        if let Some(file) = self.file()
            && file.is_ready(index, &chunk.content)
        {
            return Ok(Some(file));
        }
        if let Some(error) = segment.state.lock().failures.of(index) {
            return Err(error);
        }
        let _waiting = self.wait_as_reader();
        let mut own_request: Option<transfer::Outcome> = None;
        loop {
            // Subscribes before it checks the chunk. A chunk that arrives after the check then
            // changes `progress`, so no wake-up is lost.
            let mut progress = segment.progress.subscribe();
            progress.mark_unchanged();
            // In each round, because eviction replaces it.
            let Some(file) = self.file() else {
                return Ok(None);
            };
            if file.is_ready(index, &chunk.content) {
                return Ok(Some(file));
            }
            if let Some(content) = segment.backend.overflow.get(segment.record().id, index) {
                // The disk may have room again. A reader doesn't try: it has the bytes.
                let is_stored = self.purpose == Purpose::Background
                    && transfer::store_chunk(segment, &file, chunk, &content).is_ok();
                return Ok(is_stored.then_some(file));
            }
            match self.claim(&file, index) {
                Claim::InFlight => {}
                Claim::Failed(error) => return Err(error),
                Claim::Window(window) => {
                    if let Some(outcome) = &own_request {
                        // This reader's own request has ended without the chunk, and it retried
                        // as long as that made sense. Another one would only double the wait.
                        transfer::release(segment, window);
                        // A request that succeeded leaves the chunk absent only if the cache
                        // evicted it at once.
                        return outcome.get().map_or(Ok(None), |error| Err(error.clone()));
                    }
                    own_request = Some(transfer::start(self, window));
                }
            }
            if progress.changed().await.is_err() {
                return Err(FetchError::Ending.into());
            }
        }
    }

    /// Counts this read as waiting for the network, if a reader waits for it.
    fn wait_as_reader(&self) -> Option<WaitingGuard> {
        let readers = &self.segment.backend.readers;
        (self.purpose == Purpose::Demand).then(|| readers.wait())
    }

    /// Claims chunk `index` and a window around it, unless the chunk is already in flight.
    fn claim(&self, file: &SegmentFile, index: usize) -> Claim {
        let (segment, table) = (&self.segment, &self.table);
        // The lock is held from the check to the insertion: of readers that race for a chunk,
        // exactly one gets the window.
        let mut state = segment.state.lock();
        if state.is_in_flight(index) {
            return Claim::InFlight;
        }
        if let Some(error) = state.failures.of(index) {
            return Claim::Failed(error);
        }
        let density = segment.density();
        let wanted = state
            .history
            .next_window_len(index, density, self.purpose)
            .min(segment.backend.cache.max_bytes() / SHARE_OF_CACHE);
        let is_missing = |at: usize| {
            !state.in_flight.contains(&at)
                && table
                    .content_range(at)
                    .is_some_and(|content| !file.is_ready(at, &content))
        };
        let lens = |at: usize| table.chunks().get(at).map(weight);
        let window = window_around(index, wanted, density, lens, is_missing);
        state.in_flight.extend(window.clone());
        state.history.note_window(&window);
        Claim::Window(window)
    }

    /// Reads `range` chunk by chunk through memory, because the cache can't store it.
    async fn read_uncached(&self, range: Range<u64>) -> Result<Vec<u8>, ReadError> {
        let mut read = Vec::new();
        for chunk in self.table.chunks_in(range.clone()) {
            let content = self.chunk_uncached(&chunk).await?;
            let from = range.start.saturating_sub(chunk.content.start);
            let to = range.end.min(chunk.content.end) - chunk.content.start;
            let part = usize::try_from(from).unwrap_or(usize::MAX)
                ..usize::try_from(to).unwrap_or(usize::MAX);
            read.extend_from_slice(content.get(part).unwrap_or_default());
        }
        Ok(read)
    }

    async fn chunk_uncached(&self, chunk: &PlacedChunk) -> Result<Arc<Vec<u8>>, ReadError> {
        let (segment, index) = (&self.segment, chunk.index);
        let id = segment.record().id;
        if let Some(content) = segment.backend.overflow.get(id, index) {
            return Ok(content);
        }
        // Only some chunks of the range may be missing from the cache.
        if let Some(file) = segment.opened_file()
            && file.is_ready(index, &chunk.content)
            && let Ok(content) = file.read(chunk.content.clone())
        {
            return Ok(Arc::new(content));
        }
        if let Some(error) = segment.state.lock().failures.of(index) {
            return Err(error);
        }
        let _waiting = self.wait_as_reader();
        let stored = chunk.stored.clone();
        let content = transfer::fetch_verified(segment, stored, self.purpose, |bytes| {
            let content = decode_chunk(&chunk.record, bytes)?;
            segment
                .record()
                .check_padding(chunk.content.start, &content)?;
            Ok(content)
        })
        .await
        .inspect_err(|error| {
            let mut state = segment.state.lock();
            state.failures.note(index..index + 1, error.clone());
        })?;
        segment.backend.overflow.insert(id, index, content.clone());
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
