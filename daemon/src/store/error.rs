//! Why the store fails.

use std::path::PathBuf;

use super::key::Key;
use super::s3::S3Error;

/// Why the store fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the store can't do what is wanted")]
    Tier(#[from] TierError),
    #[error("{key} in the store can't be read")]
    Unreadable {
        key: Box<Key>,
        source: cachewfs_format::Error,
    },
    #[error("{key} in the store doesn't have the digest that its pointer gives")]
    WrongDigest { key: Box<Key> },
    #[error("{key} in the store is the manifest of another repository or snapshot")]
    Misplaced { key: Box<Key> },
    #[error("what is to be stored at {key} is not what a reader takes")]
    Encode {
        key: Box<Key>,
        source: cachewfs_format::Error,
    },
    #[error("the segment {key} in the store is damaged")]
    BadSegment {
        key: Box<Key>,
        source: cachewfs_format::Error,
    },
    #[error("an archive is shorter than was asked of it")]
    BeyondEnd,
    #[error("can't write what was read from the store")]
    Copy(#[source] std::io::Error),
    #[error("{key} is not in the store any more")]
    Gone { key: Box<Key> },
    #[error("the store took too long to be sure that what a snapshot names stays")]
    TooSlow,
    #[error("another collection of the repository is under way")]
    Collecting,
    #[error("the daemon stops")]
    Stopping,
}

/// Why a tier fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TierError {
    #[error("there is no {key}")]
    NotFound { key: Box<Key> },
    #[error("{key} ends early")]
    Truncated { key: Box<Key> },
    #[error("can't use {path}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the bucket can't give or take {key}")]
    S3 { key: Box<Key>, source: Box<S3Error> },
    #[error("the repositories in the bucket can't be listed")]
    S3List { source: Box<S3Error> },
}

impl TierError {
    /// Whether the tier, or the way to it, is out of order for now: another one may serve instead.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::S3 { source, .. } | Self::S3List { source } => source.is_outage(),
            Self::NotFound { .. } | Self::Truncated { .. } | Self::Io { .. } => false,
        }
    }

    /// Whether it is the bucket that fails, the way to it or the right to use it, and says nothing of what was asked
    /// for: a copy that was made of that will do.
    pub(crate) fn is_of_bucket(&self) -> bool {
        matches!(self, Self::S3 { .. } | Self::S3List { .. })
    }

    /// For `map_err`: an I/O error at `path`.
    pub(super) fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
