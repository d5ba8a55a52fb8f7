//! Errors of the store and of its tiers.

use std::error::Error;
use std::path::PathBuf;

use super::key::Key;

/// Why a call of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the request to the store failed")]
    Tier(#[from] TierError),
    #[error("can't parse {key} in the store")]
    Unreadable {
        key: Box<Key>,
        source: cachewfs_format::Error,
    },
    #[error("{key} in the store doesn't match the digest in its pointer")]
    WrongDigest { key: Box<Key> },
    #[error("{key} in the store is the manifest of another repository or snapshot")]
    Misplaced { key: Box<Key> },
    #[error("can't encode {key} for the store")]
    Encode {
        key: Box<Key>,
        source: cachewfs_format::Error,
    },
    #[error("the segment {key} in the store is damaged")]
    BadSegment {
        key: Box<Key>,
        source: cachewfs_format::Error,
    },
    #[error("the range is beyond the end of the archive")]
    BeyondEnd,
    #[error("can't write the content that was read from the store")]
    Copy(#[source] std::io::Error),
    #[error("{key} is not in the store any more")]
    Gone { key: Box<Key> },
    #[error("too much time passed since the snapshot was protected from garbage collection")]
    TooSlow,
    #[error("another garbage collection of the repository is in progress")]
    Collecting,
    #[error("the daemon is stopping")]
    Stopping,
}

/// Why a call of a tier failed.
#[derive(Debug, thiserror::Error)]
pub enum TierError {
    #[error("{key} doesn't exist")]
    NotFound { key: Box<Key> },
    #[error("{key} is shorter than expected")]
    Truncated { key: Box<Key> },
    #[error("can't read or write {path}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the request to the bucket failed for {key}")]
    Bucket { key: Box<Key>, source: BucketError },
    #[error("can't list the repositories in the bucket")]
    BucketList { source: BucketError },
}

impl TierError {
    /// Returns whether the tier or the network is out of order for now, so that another tier may
    /// serve instead.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Bucket { source, .. } | Self::BucketList { source } => source.is_outage(),
            Self::NotFound { .. } | Self::Truncated { .. } | Self::Io { .. } => false,
        }
    }

    /// Returns whether the bucket failed, or the network, or the daemon's access to it. Such an
    /// error says nothing about the object, so a local copy may be served.
    pub fn is_bucket_failure(&self) -> bool {
        matches!(self, Self::Bucket { .. } | Self::BucketList { .. })
    }

    /// Returns a function for `map_err` that makes an I/O error at `path`.
    pub(super) fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// Why a request to a bucket failed, in the words of the client that sent it.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The bucket or the network is out of order for now.
    #[error(transparent)]
    Outage(Box<dyn Error + Send + Sync>),
    /// The bucket has answered, or nothing was sent: another tier knows no better.
    #[error(transparent)]
    Refusal(Box<dyn Error + Send + Sync>),
}

impl BucketError {
    fn is_outage(&self) -> bool {
        match self {
            Self::Outage(_) => true,
            Self::Refusal(_) => false,
        }
    }
}
