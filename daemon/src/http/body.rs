//! Streams a range of an archive or a file, block by block.
//!
//! Each block is first read without waiting: from the page cache, or from memory. Only if that
//! fails, the bytes are fetched into the local tiers, and read on another thread if they are on
//! disk.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tracing::warn;

use super::blocks::{BLOCKS, Block};
use super::error::ApiError;
use crate::base::chain;
use crate::store::Archive;
use crate::traces;

/// How far ahead of the client's position bytes are fetched from the bucket: eight parts at the
/// same time.
const READ_AHEAD: u64 = 32 << 20;

/// A source of byte ranges.
pub(super) trait RangeSource: Send + Sync + 'static {
    /// Fills `block` with the bytes from `start` on.
    fn fill(
        self: &Arc<Self>,
        start: u64,
        block: Block,
    ) -> impl Future<Output = Result<Block, ApiError>> + Send;

    /// Fills `into` with the bytes from `start` on if that needs no waiting. Returns whether it
    /// did.
    fn read_now(&self, start: u64, into: &mut [u8]) -> bool;

    /// Fetches `range` into the local tiers, without blocking a thread.
    fn fetch_local(&self, range: Range<u64>) -> impl Future<Output = Result<(), ApiError>> + Send {
        let _ = range;
        std::future::ready(Ok(()))
    }
}

impl RangeSource for Archive {
    async fn fill(self: &Arc<Self>, start: u64, mut block: Block) -> Result<Block, ApiError> {
        self.read(start, block.as_mut()).await?;
        Ok(block)
    }

    fn read_now(&self, start: u64, into: &mut [u8]) -> bool {
        self.read_now(start, into)
    }

    async fn fetch_local(&self, range: Range<u64>) -> Result<(), ApiError> {
        Ok(self.fetch_local(range).await?)
    }
}

impl RangeSource for File {
    async fn fill(self: &Arc<Self>, start: u64, mut block: Block) -> Result<Block, ApiError> {
        let file = Arc::clone(self);
        let read = move || file.read_exact_at(block.as_mut(), start).map(|()| block);
        tokio::task::spawn_blocking(read)
            .await?
            .map_err(ApiError::Read)
    }

    fn read_now(&self, start: u64, into: &mut [u8]) -> bool {
        crate::base::read_now(self, start, into)
    }
}

/// Returns a body with the bytes of `range`. If the store fails on the way, the connection breaks,
/// so that the client can't take the bytes so far for the whole.
pub(super) fn stream_range(archive: Arc<Archive>, range: Range<u64>) -> Body {
    // Other tiers are noted when bytes are read from them.
    if archive.is_on_disk() {
        traces::note_tier("disk");
    }
    let reader = ArchiveReader {
        archive,
        next_check: range.start,
        has_waited: false,
    };
    Body::from_stream(stream::try_unfold(
        (reader, range),
        async |(mut reader, range)| match reader.read(range).await {
            Ok(block) => Ok(block.map(|(bytes, rest)| (bytes, (reader, rest)))),
            Err(error) => {
                warn!(error = chain(&error), "Reading an archive failed");
                Err(std::io::Error::other(error))
            }
        },
    ))
}

/// Reads a range of an archive block by block. Once a block needs waiting, the blocks that follow
/// are fetched ahead.
#[derive(Debug)]
struct ArchiveReader {
    archive: Arc<Archive>,
    /// The position at which the next bytes are fetched ahead.
    next_check: u64,
    /// Whether a block needed waiting, because it was not in memory.
    has_waited: bool,
}

impl ArchiveReader {
    /// Reads the next block, as [`read_block`] does.
    async fn read(&mut self, range: Range<u64>) -> Result<Option<(Bytes, Range<u64>)>, ApiError> {
        if range.is_empty() {
            return Ok(None);
        }
        let block = match read_immediately(&self.archive, &range) {
            Ok(block) => {
                self.read_ahead(&range);
                block
            }
            Err(block) => {
                self.has_waited = true;
                self.read_ahead(&range);
                fetch_and_read(&self.archive, range.start, block).await?
            }
        };
        Ok(Some(split(range, block)))
    }

    fn read_ahead(&mut self, range: &Range<u64>) {
        if !self.has_waited || range.start < self.next_check {
            return;
        }
        // The next window is fetched one part (4 MiB) further on, while the rest of this one is in
        // flight.
        self.next_check = range.start + READ_AHEAD / 8;
        let soon = range.start..range.end.min(range.start + READ_AHEAD);
        self.archive.fetch_local_soon(soon);
    }
}

/// Reads the first bytes of `range`. Returns them and the rest of the range, or `None` if it is
/// empty.
pub(super) async fn read_block(
    source: &Arc<impl RangeSource>,
    range: Range<u64>,
) -> Result<Option<(Bytes, Range<u64>)>, ApiError> {
    if range.is_empty() {
        return Ok(None);
    }
    let block = match read_immediately(source, &range) {
        Ok(block) => block,
        Err(block) => fetch_and_read(source, range.start, block).await?,
    };
    Ok(Some(split(range, block)))
}

/// Returns a block with the first bytes of `range`, or `Err` with an unfilled block if they need
/// waiting.
fn read_immediately(source: &Arc<impl RangeSource>, range: &Range<u64>) -> Result<Block, Block> {
    // On this thread: handing the read to another thread and back takes as long as the read itself.
    let mut block = BLOCKS.take(range.end - range.start);
    if source.read_now(range.start, block.as_mut()) {
        Ok(block)
    } else {
        Err(block)
    }
}

/// Waits for the bytes from `start` on, and fills `block` with them.
async fn fetch_and_read(
    source: &Arc<impl RangeSource>,
    start: u64,
    mut block: Block,
) -> Result<Block, ApiError> {
    let end = start + block.as_ref().len() as u64;
    source.fetch_local(start..end).await?;
    if source.read_now(start, block.as_mut()) {
        return Ok(block);
    }
    source.fill(start, block).await
}

fn split(range: Range<u64>, block: Block) -> (Bytes, Range<u64>) {
    let bytes = block.into_bytes();
    let rest = range.start + bytes.len() as u64..range.end;
    (bytes, rest)
}
