//! Streaming a range of an archive, block by block.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tracing::warn;

use super::error::ApiError;
use crate::error_chain::chain;
use crate::store::Archive;

/// What is read at once, in bytes: at most two of these are in memory per response.
const BLOCK_LEN: u64 = 1 << 20;

/// The bytes of `range`. If the store fails on the way, the connection breaks: what has arrived
/// can't be taken for all.
pub(super) fn stream_range(archive: Arc<Archive>, range: Range<u64>) -> Body {
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

/// The first bytes of `range`, and what is left of it; `None` if it is empty.
pub(super) async fn read_block(
    archive: &Arc<Archive>,
    range: Range<u64>,
) -> Result<Option<(Bytes, Range<u64>)>, ApiError> {
    let archive = Arc::clone(archive);
    read_first(range, move |block| {
        archive.read(block).map(Bytes::from).map_err(ApiError::from)
    })
    .await
}

/// The first bytes of `range` of a file, and what is left of it; `None` if it is empty.
pub(super) async fn read_file_block(
    file: &Arc<File>,
    range: Range<u64>,
) -> Result<Option<(Bytes, Range<u64>)>, ApiError> {
    let file = Arc::clone(file);
    read_first(range, move |block| {
        let mut bytes = vec![0; usize::try_from(block.end - block.start).unwrap_or(0)];
        file.read_exact_at(&mut bytes, block.start)
            .map_err(ApiError::Read)?;
        Ok(Bytes::from(bytes))
    })
    .await
}

/// Reads the first block of `range` where blocking does no harm; gives what is left of it, too.
async fn read_first(
    range: Range<u64>,
    read: impl FnOnce(Range<u64>) -> Result<Bytes, ApiError> + Send + 'static,
) -> Result<Option<(Bytes, Range<u64>)>, ApiError> {
    if range.is_empty() {
        return Ok(None);
    }
    let block = range.start..range.end.min(range.start + BLOCK_LEN);
    let rest = block.end..range.end;
    let bytes = tokio::task::spawn_blocking(move || read(block)).await??;
    Ok(Some((bytes, rest)))
}
