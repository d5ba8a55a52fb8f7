//! Streaming a range of an archive or of a file, block by block.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tracing::warn;

use super::blocks::BLOCKS;
use super::error::ApiError;
use crate::error_chain::chain;
use crate::store::Archive;
use crate::traces;

/// What ranges are read from.
pub(super) trait Source: Send + Sync + 'static {
    /// Fills `into` with the bytes from `start` on; blocks.
    fn read(&self, start: u64, into: &mut [u8]) -> Result<(), ApiError>;

    /// The same if it needs no waiting; tells whether it was so.
    fn read_now(&self, start: u64, into: &mut [u8]) -> bool;
}

impl Source for Archive {
    fn read(&self, start: u64, into: &mut [u8]) -> Result<(), ApiError> {
        self.read(start, into).map_err(ApiError::from)
    }

    fn read_now(&self, start: u64, into: &mut [u8]) -> bool {
        self.read_now(start, into)
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
    traces::note_tier("disk");
    Body::from_stream(stream::try_unfold(
        (archive, range),
        async |(archive, range)| match read_block(&archive, range).await {
            Ok(block) => Ok(block.map(|(bytes, rest)| (bytes, (archive, rest)))),
            Err(error) => {
                warn!(error = chain(&error), "Reading an archive failed");
                Err(std::io::Error::other(error))
            }
        },
    ))
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
    let start = range.start;
    let mut block = BLOCKS.take(range.end - start);
    if !source.read_now(start, block.as_mut()) {
        let source = Arc::clone(source);
        let read = move || source.read(start, block.as_mut()).map(|()| block);
        block = tokio::task::spawn_blocking(read).await??;
    }
    let bytes = block.into_bytes();
    let rest = start + bytes.len() as u64..range.end;
    Ok(Some((bytes, rest)))
}
