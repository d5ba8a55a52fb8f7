//! Streaming a range of an archive or of a file, block by block.

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
use crate::error_chain::chain;
use crate::store::Archive;
use crate::traces;

/// How far ahead of a client what it will want is fetched, in bytes: eight parts at the same time.
const READ_AHEAD: u64 = 32 << 20;

/// What ranges are read from.
pub(super) trait Source: Send + Sync + 'static {
    /// Fills `into` with the bytes from `start` on; blocks.
    fn read(&self, start: u64, into: &mut [u8]) -> Result<(), ApiError>;

    /// The same if it needs no waiting; tells whether it was so.
    fn read_now(&self, start: u64, into: &mut [u8]) -> bool;

    /// Waits for what is not on this machine, without a thread.
    fn bring(&self, range: Range<u64>) -> impl Future<Output = Result<(), ApiError>> + Send {
        let _ = range;
        std::future::ready(Ok(()))
    }
}

impl Source for Archive {
    fn read(&self, start: u64, into: &mut [u8]) -> Result<(), ApiError> {
        self.read(start, into).map_err(ApiError::from)
    }

    fn read_now(&self, start: u64, into: &mut [u8]) -> bool {
        self.read_now(start, into)
    }

    async fn bring(&self, range: Range<u64>) -> Result<(), ApiError> {
        Ok(self.fetch_local(range).await?)
    }
}

impl Source for File {
    fn read(&self, start: u64, into: &mut [u8]) -> Result<(), ApiError> {
        self.read_exact_at(into, start).map_err(ApiError::Read)
    }

    fn read_now(&self, start: u64, into: &mut [u8]) -> bool {
        crate::read_now::read_now(self, start, into)
    }
}

/// The bytes of `range`. If the store fails on the way, the connection breaks: what has arrived
/// can't be taken for all.
pub(super) fn stream_range(archive: Arc<Archive>, range: Range<u64>) -> Body {
    // Where else the bytes come from shows as they are read.
    if archive.is_on_disk() {
        traces::note_tier("disk");
    }
    let reader = Reader {
        archive,
        next_look: range.start,
        is_far: false,
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

/// Reads an archive from one place to another, and has what follows fetched meanwhile if something was not
/// on this machine.
#[derive(Debug)]
struct Reader {
    archive: Arc<Archive>,
    /// Where to look again whether what follows is near.
    next_look: u64,
    /// Whether something had to be waited for.
    is_far: bool,
}

impl Reader {
    /// As [`read_block`].
    async fn read(&mut self, range: Range<u64>) -> Result<Option<(Bytes, Range<u64>)>, ApiError> {
        if range.is_empty() {
            return Ok(None);
        }
        let block = match read_near(&self.archive, &range) {
            Ok(block) => {
                self.look_ahead(&range);
                block
            }
            Err(block) => {
                self.is_far = true;
                self.look_ahead(&range);
                read_far(&self.archive, range.start, block).await?
            }
        };
        Ok(Some(split(range, block)))
    }

    fn look_ahead(&mut self, range: &Range<u64>) {
        if !self.is_far || range.start < self.next_look {
            return;
        }
        self.next_look = range.start + READ_AHEAD / 8;
        let soon = range.start..range.end.min(range.start + READ_AHEAD);
        let archive = Arc::clone(&self.archive);
        // Nobody waits for it.
        drop(tokio::task::spawn_blocking(move || {
            archive.fetch_local_soon(soon);
        }));
    }
}

/// The first bytes of `range`, and what is left of it; `None` if it is empty. What the kernel has in
/// memory is read at once: handing it to another thread and back takes as long as reading it.
pub(super) async fn read_block(
    source: &Arc<impl Source>,
    range: Range<u64>,
) -> Result<Option<(Bytes, Range<u64>)>, ApiError> {
    if range.is_empty() {
        return Ok(None);
    }
    let block = match read_near(source, &range) {
        Ok(block) => block,
        Err(block) => read_far(source, range.start, block).await?,
    };
    Ok(Some(split(range, block)))
}

/// A block with the first bytes of `range`, or an empty one if they have to be waited for.
fn read_near(source: &Arc<impl Source>, range: &Range<u64>) -> Result<Block, Block> {
    let mut block = BLOCKS.take(range.end - range.start);
    if source.read_now(range.start, block.as_mut()) {
        Ok(block)
    } else {
        Err(block)
    }
}

/// Waits for the bytes from `start` on.
async fn read_far(
    source: &Arc<impl Source>,
    start: u64,
    mut block: Block,
) -> Result<Block, ApiError> {
    let end = start + block.as_ref().len() as u64;
    source.bring(start..end).await?;
    if source.read_now(start, block.as_mut()) {
        return Ok(block);
    }
    let source = Arc::clone(source);
    let read = move || source.read(start, block.as_mut()).map(|()| block);
    tokio::task::spawn_blocking(read).await?
}

fn split(range: Range<u64>, block: Block) -> (Bytes, Range<u64>) {
    let bytes = block.into_bytes();
    let rest = range.start + bytes.len() as u64..range.end;
    (bytes, rest)
}
