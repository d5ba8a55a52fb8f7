//! The errors of resolving and loading a repository.

use std::sync::Arc;

use cachewfs_format::api::code;

use crate::fetch::FetchError;
use crate::view::LoadError;

/// Why a repository can't be shown.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RepoError {
    /// The daemon says that there is no such repository, or that it won't mirror it.
    #[error("there is no repository {name}: {message}")]
    NotFound {
        /// The requested name.
        name: String,
        /// The daemon's explanation.
        message: String,
        /// Whether upstream may have it, and doesn't show it to the daemon.
        is_denied: bool,
    },
    /// The daemon is still preparing the first snapshot.
    #[error("repository {name} is not ready yet: {message}")]
    NotReady {
        /// The requested name.
        name: String,
        /// The daemon's explanation.
        message: String,
    },
    /// Fetching or reading the snapshot failed.
    #[error("can't load repository {name}")]
    Load {
        /// The requested name.
        name: String,
        /// The reason.
        source: LoadError,
    },
    /// No daemon was reached.
    #[error(transparent)]
    Unreachable(Arc<FetchError>),
    /// The daemons didn't answer the last requests, so this one was not made.
    #[error("{reason}")]
    Offline {
        /// The error of the last request.
        reason: String,
    },
    /// The list of hosts can't be fetched.
    #[error("can't fetch the list of hosts")]
    Hosts(#[source] Arc<FetchError>),
}

impl RepoError {
    /// Classifies an error of loading `name`.
    pub(crate) fn from_load(name: &str, source: LoadError) -> Self {
        let name = name.to_owned();
        if let LoadError::Fetch(error) = &source {
            match &**error {
                FetchError::Refused { code, message } if is_lasting(code) => {
                    return Self::NotFound {
                        name,
                        message: message.clone(),
                        is_denied: *code == code::UPSTREAM_DENIED,
                    };
                }
                FetchError::NotYet { message, .. } => {
                    return Self::NotReady {
                        name,
                        message: message.clone(),
                    };
                }
                _ if error.is_unreachable() => return Self::Unreachable(Arc::clone(error)),
                _ => {}
            }
        }
        Self::Load { name, source }
    }

    /// Returns whether the error is an answer that a daemon would give again: it is remembered, and
    /// not asked for again within a while.
    pub(super) fn is_answer(&self) -> bool {
        let Self::Load { source, .. } = self else {
            return matches!(self, Self::NotFound { .. });
        };
        match source {
            LoadError::Fetch(error) => {
                matches!(
                    **error,
                    FetchError::Refused { .. }
                        | FetchError::Failed { .. }
                        | FetchError::Status { .. }
                )
            }
            LoadError::Format(_) | LoadError::WrongRepo { .. } => true,
            LoadError::Read(_) => false,
        }
    }

    /// Returns whether no daemon was reached.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Hosts(error) => error.is_unreachable(),
            Self::Unreachable(_) | Self::Offline { .. } => true,
            Self::NotFound { .. } | Self::NotReady { .. } | Self::Load { .. } => false,
        }
    }
}

/// Returns whether an error code of the daemon means that the repository doesn't exist for this
/// mount, rather than that something failed for now.
fn is_lasting(error_code: &str) -> bool {
    [
        code::UPSTREAM_NOT_FOUND,
        code::UPSTREAM_MOVED,
        code::UPSTREAM_DENIED,
        code::UNKNOWN_HOST,
        code::BAD_REPO_NAME,
        code::NO_SNAPSHOT,
    ]
    .contains(&error_code)
}
