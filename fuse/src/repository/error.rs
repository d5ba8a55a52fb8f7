//! Why a repository can't be shown.

use std::error::Error as _;

use cachewfs_format::api::code;

use crate::fetch::FetchError;
use crate::view::LoadError;

/// Why a repository can't be shown.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RepoError {
    /// There is no such repository.
    #[error("there is no repository {name}: {message}")]
    NotFound {
        /// The name that was asked for.
        name: String,
        /// The daemon's sentence.
        message: String,
    },
    /// It is being prepared.
    #[error("{name} is not ready yet: {message}")]
    NotReady {
        /// The name that was asked for.
        name: String,
        /// The daemon's sentence.
        message: String,
    },
    /// It can't be loaded.
    #[error("can't load {name}")]
    Load {
        /// The name that was asked for.
        name: String,
        /// Why not.
        source: LoadError,
    },
}

impl RepoError {
    /// Sorts the ways in which loading `name` can fail.
    pub(crate) fn from_load(name: &str, source: LoadError) -> Self {
        let name = name.to_owned();
        if let LoadError::Fetch(error) = &source {
            match &**error {
                FetchError::Refused { code, message } if is_lasting(code) => {
                    return Self::NotFound {
                        name,
                        message: message.clone(),
                    };
                }
                FetchError::NotYet { message, .. } => {
                    return Self::NotReady {
                        name,
                        message: message.clone(),
                    };
                }
                _ => {}
            }
        }
        Self::Load { name, source }
    }

    /// The error and its causes in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// Whether the daemon says that there is no such repository, rather than that something fails.
fn is_lasting(found: &str) -> bool {
    [
        code::UPSTREAM_NOT_FOUND,
        code::UPSTREAM_MOVED,
        code::UPSTREAM_DENIED,
        code::UNKNOWN_HOST,
        code::BAD_REPO_NAME,
        code::NO_SNAPSHOT,
    ]
    .contains(&found)
}
