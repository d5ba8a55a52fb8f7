//! [`TreeSizeError`]: why a tree is too large to be checked out.

use cachewfs_format::limits::MAX_INDEX_LEN;

/// At most this many files and directories are checked out. The largest known repositories have
/// about three million.
pub(super) const MAX_PATHS: u64 = 10_000_000;

/// Why a tree is too large to be checked out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeSizeError {
    #[error("it has {paths} files and directories, the limit is {MAX_PATHS}")]
    Paths { paths: u64 },
    #[error("its index has {bytes} bytes, the limit is {MAX_INDEX_LEN}")]
    Index { bytes: u64 },
    #[error("its files have {bytes} bytes, but the whole disk has only {disk}")]
    Content { bytes: u64, disk: u64 },
}
