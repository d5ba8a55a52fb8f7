//! Why a snapshot can't be published.

use std::path::{Path, PathBuf};

use super::tree_size_error::TreeSizeError;
use crate::mirror::GitError;
use crate::store::StoreError;

/// Why a snapshot can't be published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("the repository has no branches and no tags")]
    RepositoryEmpty,
    #[error("the mirror lacks the object that {name} names")]
    BrokenRef { name: String },
    #[error("git failed")]
    Git(#[from] GitError),
    #[error("git can't check out the tree of HEAD")]
    RefusedTree(#[source] GitError),
    #[error("the tree of HEAD is too large to check out")]
    TreeTooLarge(#[from] TreeSizeError),
    #[error("the snapshot could not be mounted: {reason}")]
    Unusable { reason: String },
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("the snapshot can't be encoded in the archive format")]
    Format(#[from] cachewfs_format::Error),
    #[error("can't read or write {path}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("unexpected output of git: {line:?}")]
    BadOutput { line: String },
    #[error("another daemon published at the same time")]
    Raced,
    #[error("another daemon published objects that this daemon's mirror lacks")]
    Behind,
    #[error("lease lost: another daemon has taken over this publish")]
    LeaseLost,
    #[error("the daemon is stopping")]
    Stopping,
}

impl PublishError {
    /// Returns a function for `map_err` that makes an error of an I/O error at `path`.
    pub(super) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// Returns whether HEAD can't be checked out because of its tree.
    ///
    /// Git or the archive format refuses a path such as `.git/config`, or the tree is too large for
    /// this machine. A retry wouldn't help, so the history is published without a work tree.
    pub(super) fn is_refused_tree(&self) -> bool {
        match self {
            Self::RefusedTree(_)
            | Self::TreeTooLarge(_)
            | Self::Git(GitError::OutOfMemory { .. }) => true,
            Self::Format(error) => matches!(error, cachewfs_format::Error::BadPath { .. }),
            _ => false,
        }
    }

    /// Returns whether another daemon was faster, so that an update of the mirror and a retry help.
    pub(crate) fn is_overtaken(&self) -> bool {
        matches!(
            self,
            Self::Raced | Self::Behind | Self::LeaseLost | Self::Store(StoreError::Gone { .. })
        )
    }

    /// Returns the error for a line that git should not have printed.
    pub(super) fn bad_output(line: &[u8]) -> Self {
        // Clients see this error, so the quoted line has a limit.
        let line = String::from_utf8_lossy(line).chars().take(200).collect();
        Self::BadOutput { line }
    }
}
