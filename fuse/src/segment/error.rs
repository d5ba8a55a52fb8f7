//! [`ReadError`]: why content can't be read.

use std::sync::Arc;

use crate::fetch::FetchError;
use crate::readable_bytes::readable_bytes;

/// Why the content of a segment can't be read.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// A chunk or a table can't be fetched.
    #[error("can't fetch the content")]
    Fetch(#[source] Arc<FetchError>),
    /// Reading or writing a file of the cache failed.
    #[error("can't use the cache")]
    Cache(#[source] Arc<std::io::Error>),
    /// The cache is too small for the segments to be pinned or fetched.
    #[error(
        "not enough room in the cache: {} needed, {} available beside pinned repositories; \
         mount with a larger cache_size, or unpin some",
        readable_bytes(*needed_bytes),
        readable_bytes(*room_bytes)
    )]
    NoRoom {
        /// The bytes that the segments take on disk.
        needed_bytes: u64,
        /// The bytes that the cache has for them.
        room_bytes: u64,
    },
    /// A chunk arrived, and could not be written to the cache.
    #[error("the cache can't be written")]
    NotKept(#[source] Arc<std::io::Error>),
    /// Chunks arrived, and were evicted before all were there.
    #[error("the cache evicted some of the bytes while others arrived: raise cache_size")]
    Evicted,
    /// Two parts of an archive contradict each other.
    #[error("the archive contradicts itself: {what}")]
    Contradiction {
        /// The two parts, and the difference.
        what: &'static str,
    },
}

impl From<FetchError> for ReadError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(Arc::new(error))
    }
}
