//! Why a repository can't be served or brought up to date.

use std::sync::Arc;

use cachewfs_format::RepoName;

use crate::metrics::FailureKind;
use crate::mirror::{GitError, MirrorError};
use crate::publish::{LfsError, PublishError};
use crate::store::StoreError;

/// Why a repository can't be served or brought up to date; all who wait for one update share it.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RepositoryError {
    #[error("the host {host} is not configured")]
    UnknownHost { host: String },
    #[error("a part of the path of {repo} ends with .git")]
    NestedInGit { repo: RepoName },
    #[error("upstream ignores case, so {repo} is written in lower case here")]
    OtherSpelling { repo: RepoName },
    #[error("updating the mirror failed")]
    Mirror(#[source] Arc<MirrorError>),
    #[error("publishing failed")]
    Publish(#[source] Arc<PublishError>),
    #[error("upstream did not say in time whether it has moved")]
    CheckTimedOut,
    #[error("too many requests wait for this repository")]
    Busy,
    #[error("too many repositories that have no mirror yet are waited for")]
    TooManyNew,
    #[error("the repository was just forgotten")]
    Forgotten,
    #[error("the snapshots can't be deleted")]
    Store(#[source] Arc<StoreError>),
    #[error("the daemon stops")]
    Stopping,
}

impl RepositoryError {
    /// What failed, for metrics.
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

    /// Whether upstream shows no such repository, so that trying again by oneself is no use.
    pub(crate) fn is_not_found(&self) -> bool {
        use MirrorError::{Denied, Moved, NotFound, Redirected};
        matches!(self, Self::Mirror(error) if matches!(
            **error,
            NotFound { .. } | Moved { .. } | Redirected { .. } | Denied { .. }
        ))
    }

    /// The name that upstream has for the repository, if it is another one. Not everybody may know it.
    pub(crate) fn moved_to(&self) -> Option<&RepoName> {
        match self {
            Self::Mirror(error) => match &**error {
                MirrorError::Moved { to, .. } => Some(to),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the mirror could not be made or updated.
    pub(super) fn is_of_mirror(&self) -> bool {
        matches!(self, Self::Mirror(_))
    }

    /// Whether the store was away when something was to be published.
    pub(super) fn is_store_away(&self) -> bool {
        let Self::Publish(error) = self else {
            return false;
        };
        matches!(&**error, PublishError::Store(StoreError::Tier(error)) if error.is_outage())
    }

    /// Whether another daemon was faster to publish.
    pub(super) fn is_overtaken(&self) -> bool {
        matches!(self, Self::Publish(error) if error.is_overtaken())
    }

    /// Whether the state of the repository is the reason, and nothing fails.
    pub(super) fn is_permanent(&self) -> bool {
        matches!(self, Self::Publish(error) if matches!(**error, PublishError::RepositoryEmpty))
    }
}

/// What of a publish failed, for metrics.
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

/// What of making an LFS archive failed, for metrics.
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
