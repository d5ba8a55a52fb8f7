//! Why the store fails.

use std::path::PathBuf;

/// Why the store fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the store can't use {path}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} in the store can't be read")]
    Unreadable {
        path: PathBuf,
        source: cachewfs_format::Error,
    },
    #[error("{path} in the store doesn't have the digest that its pointer gives")]
    WrongDigest { path: PathBuf },
    #[error("{path} in the store is the manifest of another repository or snapshot")]
    Misplaced { path: PathBuf },
    #[error("what is to be stored at {path} is not what a reader takes")]
    Encode {
        path: PathBuf,
        source: cachewfs_format::Error,
    },
    #[error("the segment {path} in the store is damaged")]
    BadSegment {
        path: PathBuf,
        source: cachewfs_format::Error,
    },
    #[error("{path} in the store ends early")]
    Truncated { path: PathBuf },
}

impl StoreError {
    /// For `map_err`: an I/O error at `path`.
    pub(super) fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
