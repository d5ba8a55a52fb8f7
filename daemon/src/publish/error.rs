//! Why a snapshot can't be published.

use std::path::{Path, PathBuf};

use super::tree_size::TreeSizeError;
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
    #[error("what was to be written doesn't fit into the format")]
    Format(#[from] cachewfs_format::Error),
    #[error("can't use {path}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("git printed what is not understood: {line:?}")]
    BadOutput { line: String },
    #[error("another daemon published at the same time")]
    Raced,
    #[error("another daemon published what this one's mirror doesn't have")]
    Behind,
    #[error("another daemon has taken this publish over")]
    LeaseLost,
    #[error("the daemon stops")]
    Stopping,
}

impl PublishError {
    /// For `map_err`: an I/O error at `path`.
    pub(super) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// Returns whether HEAD can't be checked out, for a reason that lies in its tree: git or the format
    /// refuses a path, such as `.git/config`, or the tree is too large for this machine. The history is
    /// published all the same.
    pub(super) fn is_refused_tree(&self) -> bool {
        match self {
            Self::RefusedTree(_)
            | Self::TreeTooLarge(_)
            | Self::Git(GitError::OutOfMemory { .. }) => true,
            Self::Format(error) => matches!(error, cachewfs_format::Error::BadPath { .. }),
            _ => false,
        }
    }

    /// Whether another daemon was faster, so that an update and another try do.
    pub(crate) fn is_overtaken(&self) -> bool {
        matches!(
            self,
            Self::Raced | Self::Behind | Self::LeaseLost | Self::Store(StoreError::Gone { .. })
        )
    }

    /// For what git printed.
    pub(super) fn bad_output(line: &[u8]) -> Self {
        let line = String::from_utf8_lossy(line).chars().take(200).collect();
        Self::BadOutput { line }
    }
}
