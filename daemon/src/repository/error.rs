//! Errors of the task of a repository, and of requests that wait for it.

use std::sync::Arc;

use cachewfs_format::RepoName;

use crate::metrics::FailureKind;
use crate::mirror::{GitError, MirrorError};
use crate::publish::{LfsError, PublishError};
use crate::store::StoreError;

/// Why a repository can't be served or updated. All waiters of an update share one error.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RepositoryError {
    #[error("the host {host} is not configured in [upstreams]")]
    UnknownHost { host: String },
    #[error("the path of {repo} has a directory that ends with .git")]
    NestedInGit { repo: RepoName },
    #[error("use the name of {repo} in lower case: its upstream ignores case")]
    OtherSpelling { repo: RepoName },
    #[error("updating the mirror failed")]
    Mirror(#[source] Arc<MirrorError>),
    #[error("publishing failed")]
    Publish(#[source] Arc<PublishError>),
    #[error("upstream did not list its refs in time")]
    CheckTimedOut,
    #[error("too many requests wait for this repository")]
    Busy,
    #[error("clients already wait for too many repositories without a mirror")]
    TooManyNew,
    #[error("the repository was removed from the daemon just now")]
    Forgotten,
    #[error("can't delete the snapshots from the store")]
    Store(#[source] Arc<StoreError>),
    #[error("the daemon is stopping")]
    Stopping,
}

impl RepositoryError {
    /// Returns the kind of the failure, for metrics.
    pub(crate) fn failure_kind(&self) -> FailureKind {
        match self {
            Self::UnknownHost { .. } | Self::NestedInGit { .. } | Self::OtherSpelling { .. } => {
                FailureKind::NotFound
            }
            Self::Mirror(error) => match &**error {
                MirrorError::NotFound { .. } | MirrorError::Moved { .. } => FailureKind::NotFound,
                MirrorError::Redirected { .. }
                | MirrorError::Denied { .. }
                | MirrorError::Unreachable { .. }
                | MirrorError::TimedOut { .. }
                | MirrorError::Upstream { .. }
                | MirrorError::BadHead { .. }
                | MirrorError::Shallow { .. }
                | MirrorError::LeftBehind { .. } => FailureKind::Upstream,
                MirrorError::Git(error) => git_failure(error),
                MirrorError::Io { .. } => FailureKind::Io,
            },
            Self::Publish(error) => publish_failure(error),
            Self::CheckTimedOut => FailureKind::Upstream,
            Self::Busy | Self::TooManyNew | Self::Forgotten => FailureKind::Other,
            Self::Store(_) => FailureKind::Store,
            Self::Stopping => FailureKind::Stopping,
        }
    }

    /// Returns whether upstream doesn't show this repository, so that a retry without a request is
    /// useless.
    pub(crate) fn is_not_found(&self) -> bool {
        use MirrorError::{Denied, Moved, NotFound, Redirected};
        matches!(self, Self::Mirror(error) if matches!(
            **error,
            NotFound { .. } | Moved { .. } | Redirected { .. } | Denied { .. }
        ))
    }

    /// Returns the name under which upstream has the repository, if that is another one. Only
    /// clients that may read that repository may see it.
    pub(crate) fn moved_to(&self) -> Option<&RepoName> {
        match self {
            Self::Mirror(error) => match &**error {
                MirrorError::Moved { to, .. } => Some(to),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns whether cloning or updating the mirror failed.
    pub(super) fn is_of_mirror(&self) -> bool {
        matches!(self, Self::Mirror(_))
    }

    /// Returns whether publishing failed because the store was unreachable.
    pub(super) fn is_store_away(&self) -> bool {
        let Self::Publish(error) = self else {
            return false;
        };
        matches!(&**error, PublishError::Store(StoreError::Tier(error)) if error.is_outage())
    }

    /// Returns whether another daemon published first.
    pub(super) fn is_overtaken(&self) -> bool {
        matches!(self, Self::Publish(error) if error.is_overtaken())
    }

    /// Returns whether retrying is useless until upstream changes: the repository is empty.
    pub(super) fn is_permanent(&self) -> bool {
        matches!(self, Self::Publish(error) if matches!(**error, PublishError::RepositoryEmpty))
    }
}

/// Returns the kind of a failed publish, for metrics.
fn publish_failure(error: &PublishError) -> FailureKind {
    match error {
        PublishError::RepositoryEmpty => FailureKind::Nothing,
        PublishError::BrokenRef { .. } => FailureKind::Git,
        PublishError::Git(error) | PublishError::RefusedTree(error) => git_failure(error),
        PublishError::Store(_)
        | PublishError::Raced
        | PublishError::Behind
        | PublishError::LeaseLost => FailureKind::Store,
        PublishError::Io { .. } => FailureKind::Io,
        PublishError::Format(_)
        | PublishError::TreeTooLarge(_)
        | PublishError::Unusable { .. }
        | PublishError::BadOutput { .. } => FailureKind::Other,
        PublishError::Stopping => FailureKind::Stopping,
    }
}

/// Returns the kind of a failed LFS archive, for metrics.
pub(super) fn lfs_failure(error: &LfsError) -> FailureKind {
    match error {
        LfsError::Fetch { .. } | LfsError::Missing { .. } | LfsError::WrongContent { .. } => {
            FailureKind::Upstream
        }
        LfsError::Publish(error) => publish_failure(error),
    }
}

fn git_failure(error: &GitError) -> FailureKind {
    match error {
        GitError::Stopped { .. } => FailureKind::Stopping,
        GitError::Credentials(_) => FailureKind::Upstream,
        GitError::Spawn { .. }
        | GitError::Pipe { .. }
        | GitError::TimedOut { .. }
        | GitError::TooMuchOutput { .. }
        | GitError::OutOfMemory { .. }
        | GitError::Failed { .. } => FailureKind::Git,
        GitError::DiskFull { .. } => FailureKind::Io,
    }
}
