//! Reading content: from the cache, or after fetching a window around it.

use std::ops::Range;
use std::sync::Arc;

use cachewfs_format::SegmentTable;

use super::{Segment, transfer};
use crate::cache::SegmentFile;
use crate::fetch::FetchError;
use crate::traffic::Purpose;

/// Why content can't be read.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// Its bytes can't be had.
    #[error("can't fetch what is read")]
    Fetch(#[source] Arc<FetchError>),
    /// The cache's disk fails.
    #[error("can't read the cache")]
    Cache(#[source] Arc<std::io::Error>),
    /// The cache has no room for all that is to be kept in it.
    #[error(
        "it takes {needed_bytes} bytes, and the cache has room for {room_bytes}: raise cache_size"
    )]
    NoRoom {
        /// Bytes that all of it takes on disk.
        needed_bytes: u64,
        /// Bytes that the cache may take for it.
        room_bytes: u64,
    },
    /// A chunk came, and was evicted before it was read.
    #[error("a chunk is evicted as fast as it is fetched")]
    Evicted,
}

impl From<FetchError> for ReadError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(Arc::new(error))
    }
}

impl Segment {
    /// Reads `range` of the content, cut at its end. Waits for the network as long as the caller
    /// lets it: a request that is under way goes on when the caller has gone.
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
        let table = self.table(purpose).await?;
        let Some(file) = self.file(&table) else {
            return self.read_uncached(&table, range, purpose).await;
        };
        for index in table.chunks_of(range.clone()) {
            if !self.fetch_chunk(&table, &file, index, purpose).await? {
                return self.read_uncached(&table, range, purpose).await;
            }
        }
        file.read(range)
            .map_err(|error| ReadError::Cache(Arc::new(error)))
    }

    /// Fetches what is missing of `range` of the content.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        range: Range<u64>,
        purpose: Purpose,
    ) -> Result<(), ReadError> {
        let table = self.table(purpose).await?;
        let Some(file) = self.file(&table) else {
            return Ok(());
        };
        for index in table.chunks_of(range) {
            self.fetch_chunk(&table, &file, index, purpose).await?;
        }
        Ok(())
    }

    /// Fetches what is missing of `range` of the content and nothing around it, all at once.
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
            transfer::start(self, &table, &file, window, purpose);
        }
        for index in chunks {
            self.fetch_chunk(&table, &file, index, purpose).await?;
        }
        Ok(())
    }

    /// Claims those of `chunks` that are missing and not under way; gives runs of them.
    fn claim_exactly(
        &self,
        table: &SegmentTable,
        file: &SegmentFile,
        chunks: Range<usize>,
    ) -> Vec<Range<usize>> {
        let mut state = self.state();
        let mut windows: Vec<Range<usize>> = Vec::new();
        for index in chunks {
            let content = table.content_range(index).unwrap_or_default();
            if file.is_ready(index, &content) || !state.in_flight.insert(index) {
                continue;
            }
            match windows.last_mut() {
                Some(window) if window.end == index => window.end += 1,
                _ => windows.push(index..index + 1),
            }
        }
        windows
    }

    /// Waits until chunk `index` is in the cache. False if it came but could not be stored.
    async fn fetch_chunk(
        self: &Arc<Self>,
        table: &Arc<SegmentTable>,
        file: &Arc<SegmentFile>,
        index: usize,
        purpose: Purpose,
    ) -> Result<bool, ReadError> {
        let content = table.content_range(index).unwrap_or_default();
        if file.is_ready(index, &content) {
            return Ok(true);
        }
        let _waiting = (purpose == Purpose::Demand).then(|| self.backend.reader_waits());
        let mut has_asked = false;
        loop {
            let mut progress = self.progress.subscribe();
            progress.mark_unchanged();
            if file.is_ready(index, &content) {
                return Ok(true);
            }
            if self.backend.overflow.get(self.record().id, index).is_some() {
                return Ok(false);
            }
            match self.claim(table, file, index, purpose) {
                Claim::InFlight => {}
                Claim::Window(window) => {
                    if has_asked {
                        let failure = self.state().failure.clone();
                        transfer::release(self, window);
                        return Err(failure.unwrap_or(ReadError::Evicted));
                    }
                    has_asked = true;
                    transfer::start(self, table, file, window, purpose);
                }
            }
            if progress.changed().await.is_err() {
                return Err(FetchError::Ending.into());
            }
        }
    }

    /// Claims chunk `index` and a window around it, unless a request for it is under way.
    fn claim(
        &self,
        table: &SegmentTable,
        file: &SegmentFile,
        index: usize,
        purpose: Purpose,
    ) -> Claim {
        let mut state = self.state();
        if state.in_flight.contains(&index) {
            return Claim::InFlight;
        }
        let wanted = state
            .history
            .next_window_len(index, self.density(), purpose);
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

    /// Reads chunk by chunk what the disk has no room for.
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
        if let Some(file) = self.opened_file()
            && file.is_ready(index, &content)
            && let Ok(content) = file.read(content.clone())
        {
            return Ok(Arc::new(content));
        }
        let _waiting = (purpose == Purpose::Demand).then(|| self.backend.reader_waits());
        let stored = table.stored_range(index).unwrap_or_default();
        let chunk = table
            .chunks()
            .get(index)
            .copied()
            .ok_or(ReadError::Evicted)?;
        let start = content.start;
        let content = transfer::fetch_verified(self, stored, purpose, |bytes| {
            let content = cachewfs_format::decode_chunk(&chunk, bytes)?;
            self.record().check_padding(start, &content)?;
            Ok(content)
        })
        .await?;
        self.backend.overflow.insert(id, index, content.clone());
        Ok(Arc::new(content))
    }
}

/// What a reader that misses a chunk has to do.
enum Claim {
    /// Wait for the request that is under way.
    InFlight,
    /// Make a request for these chunks, which are its own now.
    Window(Range<usize>),
}
