//! Requests for chunks: each chunk is verified when it arrives, and failures are retried.
//!
//! A request streams a window of chunks. A chunk is handed over as soon as its last byte arrives,
//! so the first reader doesn't wait for the whole window. If the stream breaks, the next attempt
//! starts after the last complete chunk. All attempts end `read_timeout` after the first began.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cachewfs_format::{Error as FormatError, SegmentTable, decode_chunk};
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use super::{ReadError, Segment, SegmentLocation};
use crate::cache::SegmentFile;
use crate::fetch::{FetchError, RangeRequest};
use crate::traffic::Purpose;

/// How long the first backoff lasts at most. Each further failure doubles it.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// How long any backoff lasts at most.
const LONGEST_BACKOFF: Duration = Duration::from_secs(3);

/// Starts a background request for the chunks of `window`, which the caller has claimed.
pub(super) fn start(
    segment: &Arc<Segment>,
    table: &Arc<SegmentTable>,
    file: &Arc<SegmentFile>,
    window: Range<usize>,
    purpose: Purpose,
) {
    let (segment, table, file) = (Arc::clone(segment), Arc::clone(table), Arc::clone(file));
    let backend = Arc::clone(&segment.backend);
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
            file: &file,
            purpose,
        };
        let outcome = tokio::select! {
            outcome = transfer.run(window) => outcome,
            () = backend.ending.cancelled() => Err(FetchError::Ending),
        };
        if let Err(error) = outcome {
            debug!(
                error = &error as &dyn std::error::Error,
                "A request for chunks failed"
            );
            segment.state().failure = Some(error.into());
        }
        // Released only now: releasing wakes the waiters, and they read `failure`.
        drop(claim);
    });
}

/// Releases a claim and wakes all waiters of the segment.
pub(super) fn release(segment: &Segment, window: Range<usize>) {
    let mut state = segment.state();
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
    // Read anew for each attempt: a catch-up may have moved the segment to another archive.
    let locate = || segment.location();
    fetch_verified_from(segment, locate, range, purpose, verify).await
}

/// Does the work of [`fetch_verified`], and asks the archive that `locate` names.
pub(super) async fn fetch_verified_from<T>(
    segment: &Segment,
    locate: impl Fn() -> SegmentLocation,
    range: Range<u64>,
    purpose: Purpose,
    verify: impl Fn(&Bytes) -> Result<T, FormatError>,
) -> Result<T, ReadError> {
    let mut retry = Retry::new(segment, purpose);
    loop {
        let attempt = async {
            let (range, location) = (range.clone(), locate());
            let mut body = open(segment, location, range, purpose, retry.attempt).await?;
            let mut bytes = BytesMut::new();
            while let Some(piece) = body.next().await {
                bytes.extend_from_slice(&piece?);
            }
            verify(&bytes.freeze()).map_err(|source| broken(segment, source))
        };
        match timeout_at(retry.deadline, attempt).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => retry.back_off(error).await?,
            Err(_) => return Err(retry.timed_out().into()),
        }
    }
}

/// Sends one request for `range`, in stored bytes of the segment, to the archive at `location`.
async fn open(
    segment: &Segment,
    location: SegmentLocation,
    range: Range<u64>,
    purpose: Purpose,
    attempt: usize,
) -> Result<crate::fetch::BodyStream, FetchError> {
    let role = segment.record().role;
    debug!(
        ?role,
        start = range.start,
        end = range.end,
        ?purpose,
        attempt,
        "Fetching {role:?}"
    );
    let range =
        location.offset.saturating_add(range.start)..location.offset.saturating_add(range.end);
    segment
        .backend
        .source
        .range(RangeRequest {
            repo: location.repo,
            path: location.path,
            range,
            purpose,
            attempt,
        })
        .await
}

/// Reports bytes that failed verification, and returns the error of the attempt.
fn broken(segment: &Segment, source: FormatError) -> FetchError {
    let location = segment.location();
    warn!(
        path = &*location.path,
        error = &source as &dyn std::error::Error,
        "Received broken bytes of {}",
        location.path
    );
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
    file: &'a SegmentFile,
    purpose: Purpose,
}

impl ChunkTransfer<'_> {
    async fn run(&self, window: Range<usize>) -> Result<(), FetchError> {
        let mut retry = Retry::new(self.segment, self.purpose);
        let mut next = window.start;
        while next < window.end {
            let attempt = self.stream(&mut next, window.end, retry.attempt);
            match timeout_at(retry.deadline, attempt).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => retry.back_off(error).await?,
                Err(_) => return Err(retry.timed_out()),
            }
        }
        Ok(())
    }

    /// Makes one attempt, from chunk `next` to before chunk `end`. Moves `next` past each chunk
    /// that arrives, so that a later attempt continues there.
    async fn stream(&self, next: &mut usize, end: usize, attempt: usize) -> Result<(), FetchError> {
        let start = self.table.stored_range(*next).unwrap_or_default().start;
        let stop = self
            .table
            .stored_range(end.saturating_sub(1))
            .unwrap_or_default()
            .end;
        let (location, purpose) = (self.segment.location(), self.purpose);
        let mut body = open(self.segment, location, start..stop, purpose, attempt).await?;
        let mut buffer = BytesMut::new();
        while let Some(piece) = body.next().await {
            buffer.extend_from_slice(&piece?);
            while *next < end
                && let Some(chunk) = self.table.chunks().get(*next)
                && let Ok(len) = usize::try_from(chunk.stored_len)
                && buffer.len() >= len
            {
                let stored = buffer.split_to(len).freeze();
                accept_chunk_into(self.segment, self.table, self.file, *next, &stored)
                    .map_err(|source| broken(self.segment, source))?;
                *next += 1;
                self.segment
                    .progress
                    .send_modify(|count| *count = count.wrapping_add(1));
            }
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
    accept_chunk_into(segment, table, &file, index, stored)
}

/// Verifies chunk `index` and writes it to `file`, or to the overflow if the disk refuses it.
fn accept_chunk_into(
    segment: &Segment,
    table: &SegmentTable,
    file: &SegmentFile,
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
    if let Err(error) = file.store(index, offset, &content) {
        segment.backend.cache.failures().note(error);
        segment
            .backend
            .overflow
            .insert(segment.record().id, index, content);
        return Ok(());
    }
    segment.backend.cache.failures().note_success();
    segment.backend.cache.count_stored(content.len() as u64);
    Ok(())
}

/// The schedule of the attempts of one fetch.
struct Retry<'a> {
    segment: &'a Segment,
    purpose: Purpose,
    attempt: usize,
    deadline: Instant,
}

impl<'a> Retry<'a> {
    fn new(segment: &'a Segment, purpose: Purpose) -> Self {
        Self {
            segment,
            purpose,
            attempt: 0,
            deadline: Instant::now() + segment.backend.read_timeout,
        }
    }

    fn timed_out(&self) -> FetchError {
        FetchError::TimedOut {
            seconds: self.segment.backend.read_timeout.as_secs(),
        }
    }

    /// Sleeps before the next attempt. Returns `error` if it is permanent, or if the next attempt
    /// would start after the deadline.
    async fn back_off(&mut self, error: FetchError) -> Result<(), FetchError> {
        if !error.is_transient() {
            return Err(error);
        }
        let doubled = FIRST_BACKOFF.saturating_mul(1 << self.attempt.min(10));
        let pause = crate::jitter::jitter(doubled.min(LONGEST_BACKOFF));
        if Instant::now() + pause >= self.deadline {
            return Err(error);
        }
        let repo = self.segment.location().repo;
        let traffic = &self.segment.backend.traffic;
        traffic.meter(Some(&repo), self.purpose).count_retry();
        self.attempt += 1;
        sleep(pause).await;
        Ok(())
    }
}
