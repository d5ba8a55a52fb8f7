//! Requests for chunks: each chunk is verified when it arrives, and failures are retried.
//!
//! A request streams a window of chunks. A chunk is handed over as soon as its last byte arrives,
//! so the first reader doesn't wait for the whole window. If the stream breaks, the next attempt
//! starts after the last complete chunk. `retry.rs` says when the attempts end.

use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use cachewfs_format::{Error as FormatError, PlacedChunk, SegmentTable, decode_chunk};
use tracing::{debug, warn};

use super::body::BodyRequest;
use super::reading::Reading;
use super::retry::Retry;
use super::{ReadError, Segment, SegmentLocation};
use crate::cache::SegmentFile;
use crate::caller;
use crate::fetch::FetchError;
use crate::traffic::Purpose;

/// The error of a background request, once it has failed.
pub(super) type Outcome = Arc<OnceLock<ReadError>>;

/// Starts a background request for the chunks of `window`, which the caller has claimed.
pub(super) fn start(reading: &Reading, window: Range<usize>) -> Outcome {
    let reading = reading.clone();
    let tasks = reading.segment.backend.tasks.clone();
    let outcome = Outcome::default();
    let noted = Arc::clone(&outcome);
    tasks.clone().spawn(caller::for_same_caller(async move {
        let segment = &reading.segment;
        // The guard releases the claim however this task ends, even by a panic. Otherwise the
        // waiters of these chunks would wait forever.
        let claim = ClaimGuard {
            segment,
            window: window.clone(),
        };
        let chunks: Vec<_> = reading.chunks(window.clone()).collect();
        let mut missing = chunks.as_slice();
        let ended = tasks.until_end(transfer(&reading, &mut missing)).await;
        if let Err(error) = ended.unwrap_or(Err(FetchError::Ending)) {
            let next = missing.first().map_or(window.end, |chunk| chunk.index);
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
    }));
    outcome
}

/// Releases a claim and wakes all waiters of the segment.
pub(super) fn release(segment: &Segment, window: Range<usize>) {
    let mut state = segment.state.lock();
    for index in window {
        state.in_flight.remove(&index);
    }
    drop(state);
    segment.wake_waiters();
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

/// Fetches `missing`, which are neighbours, in as many attempts as it takes. Takes each chunk out
/// when it has arrived.
async fn transfer(reading: &Reading, missing: &mut &[PlacedChunk]) -> Result<(), FetchError> {
    let mut retry = Retry::new(&reading.segment, reading.purpose);
    while let (Some(first), Some(last)) = (missing.first(), missing.last()) {
        let request = BodyRequest {
            segment: &reading.segment,
            place: None,
            range: first.stored.start..last.stored.end,
            purpose: reading.purpose,
            attempt: retry.failed,
        };
        retry.run(stream(reading, request, missing)).await?;
    }
    Ok(())
}

/// Makes one attempt to fetch `missing`. A later attempt continues with the rest.
async fn stream(
    reading: &Reading,
    request: BodyRequest<'_>,
    missing: &mut &[PlacedChunk],
) -> Result<(), FetchError> {
    let segment = &*reading.segment;
    let expected = request.range.end.saturating_sub(request.range.start);
    let mut body = request.open().await?;
    let mut buffer = BytesMut::new();
    let mut received = 0;
    // Kept until the next chunk arrives: otherwise it might be closed and opened for each.
    let mut file;
    while let Some(piece) = body.next().await? {
        received += piece.len() as u64;
        buffer.extend_from_slice(&piece);
        while let Some((chunk, others)) = missing.split_first()
            && let Ok(len) = usize::try_from(chunk.record.stored_len)
            && buffer.len() >= len
        {
            let stored = buffer.split_to(len).freeze();
            // Eviction may have replaced it. Readers look into the newest one.
            file = reading.file();
            accept_chunk_into(segment, file.as_deref(), chunk, &stored)
                .map_err(|source| broken(segment, source))?;
            *missing = others;
            segment.wake_waiters();
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    // A body that ends early without an error is a failed attempt, too: without a backoff, the next
    // attempt would follow at once.
    Err(FetchError::Cut {
        url: segment.location().path.to_string(),
        received,
        expected,
    })
}

/// Verifies a chunk and writes it to the cache. Does nothing if the cache files can't be opened.
pub(super) fn accept_chunk(
    segment: &Segment,
    table: &SegmentTable,
    chunk: &PlacedChunk,
    stored: &[u8],
) -> Result<(), FormatError> {
    let Some(file) = segment.file(table) else {
        // The failure is noted: whoever was asked to keep the chunk reports it.
        return Ok(());
    };
    accept_chunk_into(segment, Some(&file), chunk, stored)
}

/// Verifies a chunk and writes it to `file`. Keeps it in the overflow if there is no file, or if
/// the disk refuses it.
fn accept_chunk_into(
    segment: &Segment,
    file: Option<&SegmentFile>,
    chunk: &PlacedChunk,
    stored: &[u8],
) -> Result<(), FormatError> {
    let content = decode_chunk(&chunk.record, stored)?;
    // Bytes after the end of the file must be zeros. A TOC that gives a file too small a size
    // could otherwise cut off content.
    segment
        .record()
        .check_padding(chunk.content.start, &content)?;
    match file.map(|file| store_chunk(segment, file, chunk, &content)) {
        Some(Ok(())) => return Ok(()),
        Some(Err(error)) => segment.backend.cache.failures().note(error),
        None => {}
    }
    let id = segment.record().id;
    segment.backend.overflow.insert(id, chunk.index, content);
    Ok(())
}

/// Writes the content of a chunk to `file`.
pub(super) fn store_chunk(
    segment: &Segment,
    file: &SegmentFile,
    chunk: &PlacedChunk,
    content: &[u8],
) -> io::Result<()> {
    let cache = &segment.backend.cache;
    file.store(chunk.index, chunk.content.start, content)?;
    cache.failures().note_success();
    cache.count_stored(content.len() as u64);
    Ok(())
}
