//! Why an LFS archive can't be published.

use super::LfsOid;
use crate::mirror::{GitError, LfsFetchError};
use crate::publish::PublishError;
use crate::store::StoreError;

/// Why an LFS archive can't be published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LfsError {
    #[error("can't fetch the LFS objects of {url}")]
    Fetch { url: String, source: LfsFetchError },
    #[error("upstream did not send the LFS object {oid}")]
    Missing { oid: LfsOid },
    #[error("upstream sent wrong bytes for the LFS object {oid}")]
    WrongContent { oid: LfsOid },
    #[error("can't publish the LFS archive")]
    Publish(#[from] PublishError),
}

impl From<StoreError> for LfsError {
    fn from(error: StoreError) -> Self {
        Self::Publish(error.into())
    }
}

impl From<GitError> for LfsError {
    fn from(error: GitError) -> Self {
        Self::Publish(error.into())
    }
}
