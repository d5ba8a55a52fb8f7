//! [`TaskRequest`]: a request to the task of a repository.

use tokio::sync::oneshot;

use super::RepositoryError;
use crate::publish::PublishOutcome;

pub(super) type RunOutcome = Result<PublishOutcome, RepositoryError>;

/// Whether the snapshots in the store are deleted together with the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Snapshots {
    Kept,
    Deleted,
}

/// A request to the task of a repository. The task answers it at the end of the first run that
/// begins after the request came.
#[derive(Debug)]
pub(super) enum TaskRequest {
    /// An update, and the publish that follows it.
    Publish(oneshot::Sender<RunOutcome>),
    /// An update, and a publish that writes all packs anew.
    LayOutAnew(oneshot::Sender<RunOutcome>),
    /// Removes the mirror and ends the task; the snapshots are kept or deleted.
    Forget(Snapshots, oneshot::Sender<Result<(), RepositoryError>>),
    /// An update.
    Update(oneshot::Sender<Result<(), RepositoryError>>),
}

impl TaskRequest {
    /// Returns whether this is an explicit request for work, which ignores a backoff. A request for
    /// fresh data is not.
    pub(super) fn is_explicit(&self) -> bool {
        match self {
            Self::Publish(_) | Self::LayOutAnew(_) => true,
            Self::Update(_) | Self::Forget(..) => false,
        }
    }

    /// Returns whether this request ends the task.
    pub(super) fn is_forget(&self) -> bool {
        matches!(self, Self::Forget(..))
    }

    /// Sends the result of a run to the requester, who may have gone away.
    pub(super) fn answer(self, outcome: &RunOutcome) {
        match self {
            Self::Publish(sender) | Self::LayOutAnew(sender) => {
                drop(sender.send(outcome.clone()));
            }
            Self::Update(sender) | Self::Forget(_, sender) => {
                drop(sender.send(outcome.clone().map(drop)));
            }
        }
    }
}
