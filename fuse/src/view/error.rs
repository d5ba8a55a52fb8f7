//! [`LoadError`]: why a snapshot can't be shown.

use std::sync::Arc;

use cachewfs_format::{Error as FormatError, RepoName};

use crate::fetch::FetchError;
use crate::segment::ReadError;

/// Why a snapshot can't be loaded.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The end of the archive can't be fetched.
    #[error(transparent)]
    Fetch(Arc<FetchError>),
    /// A segment of the archive can't be read.
    #[error("can't read the snapshot")]
    Read(#[from] ReadError),
    /// The archive is malformed.
    #[error("the archive is malformed")]
    Format(#[from] FormatError),
    /// The archive is one of another repository.
    #[error("the daemon sent an archive of another repository, {found}")]
    WrongRepo {
        /// The repository that its TOC names.
        found: RepoName,
    },
}

impl From<FetchError> for LoadError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(Arc::new(error))
    }
}
