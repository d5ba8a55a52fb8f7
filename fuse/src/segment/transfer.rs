//! Requests for chunks: each chunk is verified when it arrives, and failures are retried.
//!
//! A request streams a window of chunks. A chunk is handed over as soon as its last byte arrives,
//! so the first reader doesn't wait for the whole window. If the stream breaks, the next attempt
//! starts after the last complete chunk. `retry.rs` says when the attempts end.

use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use cachewfs_format::{Error as FormatError, SegmentTable, decode_chunk};
use tracing::{debug, warn};

use super::body::BodyRequest;
use super::retry::Retry;
use super::{ReadError, Segment, SegmentLocation};
use crate::cache::SegmentFile;
use crate::fetch::FetchError;
use crate::traffic::Purpose;

/// The error of a background request, once it has failed.
pub(super) type Outcome = Arc<OnceLock<ReadError>>;

/// Starts a background request for the chunks of `window`, which the caller has claimed.
pub(super) fn start(
    segment: &Arc<Segment>,
    table: &Arc<SegmentTable>,
    window: Range<usize>,
    purpose: Purpose,
) -> Outcome {
    let (segment, table) = (Arc::clone(segment), Arc::clone(table));
    let backend = Arc::clone(&segment.backend);
    let outcome = Outcome::default();
    let noted = Arc::clone(&outcome);
    backend.tasks.clone().spawn(async move {
        // The guard releases the claim however this task ends, even by a panic. Otherwise the
        // waiters of these chunks would wait forever.
        let claim = ClaimGuard {
            segment: &segment,
            window: window.clone(),
        };
        let transfer = ChunkTransfer {
            segment: &segment,
            table: &table,
            purpose,
        };
        let mut next = window.start;
        let ended = tokio::select! {
            ended = transfer.run(&mut next, window.end) => ended,
            () = backend.ending.cancelled() => Err(FetchError::Ending),
        };
        if let Err(error) = ended {
            // A slow line is no failure: readers of the other chunks may ask with a window of
            // their own.
            let is_slow = matches!(error, FetchError::TimedOut { .. }) && next > window.start;
            debug!(
                error = &error as &dyn std::error::Error,
                "A request for chunks failed"
            );
            let error = ReadError::from(error);
            let mut state = segment.state.lock();
            state.history.note_failure();
            if !is_slow {
                state.failures.note(next..window.end, error.clone());
            }
            drop(state);
            noted.set(error).ok();
        }
        // Released only now: releasing wakes the waiters, and they look for the failure.
        drop(claim);
    });
    outcome
}

/// Releases a claim and wakes all waiters of the segment.
pub(super) fn release(segment: &Segment, window: Range<usize>) {
    let mut state = segment.state.lock();
    for index in window {
        state.in_flight.remove(&index);
    }
    drop(state);
    segment
        .progress
        .send_modify(|count| *count = count.wrapping_add(1));
}

/// A guard that releases a claim when it is dropped.
struct ClaimGuard<'a> {
    segment: &'a Segment,
    window: Range<usize>,
}

impl Drop for ClaimGuard<'_> {
    fn drop(&mut self) {
        release(self.segment, self.window.clone());
    }
}

/// Fetches `range`, in stored bytes of the segment, and returns the result of `verify` on them.
/// Retries until `verify` succeeds or the deadline passes.
pub(super) async fn fetch_verified<T>(
    segment: &Segment,
    range: Range<u64>,
    purpose: Purpose,
    verify: impl Fn(&Bytes) -> Result<T, FormatError>,
) -> Result<T, ReadError> {
    fetch_verified_from(segment, None, range, purpose, verify).await
}

/// Fetches like [`fetch_verified`], from the archive of `place` if there is one.
pub(super) async fn fetch_verified_from<T>(
    segment: &Segment,
    place: Option<&SegmentLocation>,
    range: Range<u64>,
    purpose: Purpose,
    verify: impl Fn(&Bytes) -> Result<T, FormatError>,
) -> Result<T, ReadError> {
    let mut retry = Retry::new(segment, purpose);
    loop {
        let request = BodyRequest {
            segment,
            place,
            range: range.clone(),
            purpose,
            attempt: retry.failed,
        };
        let attempt = async {
            let mut body = request.open().await?;
            let mut bytes = BytesMut::new();
            while let Some(piece) = body.next().await? {
                bytes.extend_from_slice(&piece);
            }
            verify(&bytes.freeze()).map_err(|source| broken(segment, source))
        };
        if let Some(value) = retry.run(attempt).await? {
            return Ok(value);
        }
    }
}

/// Reports bytes that failed verification, and returns the error of the attempt.
fn broken(segment: &Segment, source: FormatError) -> FetchError {
    let location = segment.location();
    let known = segment
        .state
        .lock()
        .broken
        .replace(Arc::clone(&location.path));
    // Each attempt of a read may get wrong bytes, for example from a daemon that built the snapshot
    // anew. One line is enough for all of them.
    if known.as_ref() != Some(&location.path) {
        warn!(
            path = &*location.path,
            error = &source as &dyn std::error::Error,
            "Received wrong bytes of {}",
            location.path
        );
    }
    // The bytes may have come from the bucket. The source then stops reading there for a while.
    segment.backend.source.note_broken();
    FetchError::Broken {
        url: location.path.to_string(),
        source,
    }
}

/// The transfer of a window of chunks, over as many attempts as it takes.
struct ChunkTransfer<'a> {
    segment: &'a Segment,
    table: &'a SegmentTable,
    purpose: Purpose,
}

impl ChunkTransfer<'_> {
    /// Fetches from chunk `next` to before chunk `end`. Moves `next` past each chunk that arrives.
    async fn run(&self, next: &mut usize, end: usize) -> Result<(), FetchError> {
        let mut retry = Retry::new(self.segment, self.purpose);
        while *next < end {
            let attempt = self.stream(next, end, retry.failed);
            retry.run(attempt).await?;
        }
        Ok(())
    }

    /// Makes one attempt. A later one continues at `next`.
    async fn stream(&self, next: &mut usize, end: usize, attempt: usize) -> Result<(), FetchError> {
        let start = self.table.stored_range(*next).unwrap_or_default().start;
        let stop = self
            .table
            .stored_range(end.saturating_sub(1))
            .unwrap_or_default()
            .end;
        let request = BodyRequest {
            segment: self.segment,
            place: None,
            range: start..stop,
            purpose: self.purpose,
            attempt,
        };
        let mut body = request.open().await?;
        let mut buffer = BytesMut::new();
        let mut received = 0;
        // Kept until the next chunk arrives: otherwise it might be closed and opened for each.
        let mut file;
        while let Some(piece) = body.next().await? {
            received += piece.len() as u64;
            buffer.extend_from_slice(&piece);
            while *next < end
                && let Some(chunk) = self.table.chunks().get(*next)
                && let Ok(len) = usize::try_from(chunk.stored_len)
                && buffer.len() >= len
            {
                let stored = buffer.split_to(len).freeze();
                // Eviction may have replaced it. Readers look into the newest one.
                file = self.segment.file(self.table);
                accept_chunk_into(self.segment, self.table, file.as_deref(), *next, &stored)
                    .map_err(|source| broken(self.segment, source))?;
                *next += 1;
                self.segment
                    .progress
                    .send_modify(|count| *count = count.wrapping_add(1));
            }
        }
        if *next < end {
            // A body that ends early without an error is a failed attempt, too: without a backoff,
            // the next attempt would follow at once.
            return Err(FetchError::Cut {
                url: self.segment.location().path.to_string(),
                received,
                expected: stop.saturating_sub(start),
            });
        }
        Ok(())
    }
}

/// Verifies chunk `index` and writes it to the cache. Does nothing if the cache files can't be
/// opened.
pub(super) fn accept_chunk(
    segment: &Segment,
    table: &SegmentTable,
    index: usize,
    stored: &[u8],
) -> Result<(), FormatError> {
    let Some(file) = segment.file(table) else {
        // The failure is noted: whoever was asked to keep the chunk reports it.
        return Ok(());
    };
    accept_chunk_into(segment, table, Some(&file), index, stored)
}

/// Verifies chunk `index` and writes it to `file`. Keeps it in the overflow if there is no file, or
/// if the disk refuses it.
fn accept_chunk_into(
    segment: &Segment,
    table: &SegmentTable,
    file: Option<&SegmentFile>,
    index: usize,
    stored: &[u8],
) -> Result<(), FormatError> {
    let Some(chunk) = table.chunks().get(index) else {
        return Ok(());
    };
    let content = decode_chunk(chunk, stored)?;
    let offset = table.content_range(index).unwrap_or_default().start;
    // Bytes after the end of the file must be zeros. A TOC that gives a file too small a size
    // could otherwise cut off content.
    segment.record().check_padding(offset, &content)?;
    let stored = file.map(|file| store_chunk(segment, (file, offset), index, &content));
    if let Some(Ok(())) = stored {
        return Ok(());
    }
    if let Some(Err(error)) = stored {
        segment.backend.cache.failures().note(error);
    }
    let id = segment.record().id;
    segment.backend.overflow.insert(id, index, content);
    Ok(())
}

/// Writes chunk `index`, which begins at `offset`, to `file`.
pub(super) fn store_chunk(
    segment: &Segment,
    (file, offset): (&SegmentFile, u64),
    index: usize,
    content: &[u8],
) -> io::Result<()> {
    let cache = &segment.backend.cache;
    file.store(index, offset, content)?;
    cache.failures().note_success();
    cache.count_stored(content.len() as u64);
    Ok(())
}
