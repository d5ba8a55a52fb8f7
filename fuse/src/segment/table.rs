//! Loads the table of a segment: from the cache, alone, or with the whole segment.

use std::sync::Arc;

use bytes::Bytes;
use cachewfs_format::{PlacedChunk, SegmentTable, TocSegment};

use super::window::MAX_RATIO;
use super::{ReadError, Segment, transfer};
use crate::fetch::FetchError;
use crate::negotiated::READ_AHEAD;
use crate::traffic::Purpose;

impl Segment {
    /// Returns the table from memory, from the cache, or from a daemon. Concurrent callers share
    /// one request.
    pub(crate) async fn table(&self, purpose: Purpose) -> Result<Arc<SegmentTable>, ReadError> {
        self.table
            .get_or_try_init(|| self.load_table(purpose))
            .await
            .cloned()
    }

    async fn load_table(&self, purpose: Purpose) -> Result<Arc<SegmentTable>, ReadError> {
        if let Some(table) = self.cached_table() {
            return Ok(table);
        }
        if let Some(error) = self.state.lock().failures.of_table() {
            return Err(error);
        }
        if self.is_fetched_whole() {
            return self.load_whole(purpose).await;
        }
        let TocSegment {
            stored_len,
            table_len,
            ..
        } = self.record;
        let range = stored_len.saturating_sub(u64::from(table_len))..stored_len;
        let fetch =
            transfer::fetch_verified(self, range, purpose, |bytes| self.accept_table(bytes));
        fetch
            .await
            .inspect_err(|error| self.state.lock().failures.note_table(error.clone()))
    }

    /// Fetches the whole segment. If a request for it is in flight already, waits for that one.
    async fn load_whole(&self, purpose: Purpose) -> Result<Arc<SegmentTable>, ReadError> {
        let claim = loop {
            if let Some(claim) = self.claim_whole() {
                break claim;
            }
            self.until_idle().await;
            if let Some(table) = self.cached_table() {
                return Ok(table);
            }
            if let Some(failure) = self.state.lock().failures.of_table() {
                return Err(failure);
            }
        };
        let range = 0..self.record.stored_len;
        let fetch =
            transfer::fetch_verified(self, range, purpose, |bytes| self.accept_whole(bytes));
        fetch.await.inspect_err(|error| claim.fail(error))
    }

    /// Fetches the table and, in parallel, the first chunks.
    pub(crate) async fn fetch_front(&self) -> Result<(), ReadError> {
        let purpose = Purpose::Background;
        let stored_len = self.record.stored_len;
        if self.table.initialized() || self.is_fetched_whole() {
            return self.table(purpose).await.map(drop);
        }
        let len = u64::from(READ_AHEAD).min(stored_len);
        let front = transfer::fetch_verified(self, 0..len, purpose, |bytes| Ok(bytes.clone()));
        let (front, table) = futures_util::join!(front, self.table(purpose));
        let (front, table) = (front?, table?);
        // The range limits how much is decompressed: `front` can hold many chunks of a bomb.
        for chunk in table.chunks_in(0..len.saturating_mul(MAX_RATIO)) {
            let Ok(stored) = stored_bytes(&chunk, &front) else {
                // The front ends inside this chunk.
                break;
            };
            transfer::accept_chunk(self, &table, &chunk, &stored).map_err(|source| {
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
            self.backend.cache.failures().note(error);
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
        for chunk in table.placed_chunks() {
            transfer::accept_chunk(self, &table, &chunk, &stored_bytes(&chunk, stored)?)?;
        }
        Ok(table)
    }
}

/// Returns the stored bytes of a chunk. `stored` begins where the segment begins.
fn stored_bytes(chunk: &PlacedChunk, stored: &Bytes) -> Result<Bytes, cachewfs_format::Error> {
    let offset = |at| usize::try_from(at).ok().filter(|&at| at <= stored.len());
    match (offset(chunk.stored.start), offset(chunk.stored.end)) {
        (Some(start), Some(end)) => Ok(stored.slice(start..end)),
        _ => Err(cachewfs_format::Error::Truncated { section: "segment" }),
    }
}
