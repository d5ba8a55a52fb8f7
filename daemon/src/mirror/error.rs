//! Why a mirror can't be made or updated.

use std::path::PathBuf;

use super::GitError;

/// Why a mirror can't be made or updated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MirrorError {
    #[error("upstream has no repository at {url}, or doesn't show it without credentials")]
    NotFound { url: String },
    #[error("upstream {url} failed")]
    Upstream { url: String, source: GitError },
    #[error("the mirror failed")]
    Git(#[from] GitError),
    #[error("can't write {path}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// What git, or the server through it, says when there is no such repository (`LC_ALL=C`).
/// A server that wants a password for it says no more than that.
const NOT_FOUND: &[&str] = &[
    "' not found",
    "Repository not found",
    "does not appear to be a git repository",
    "could not read Username",
    "returned error: 404",
    "returned error: 410",
    "returned error: 403",
    "Authentication failed",
];

impl MirrorError {
    /// Tells a repository that isn't there from an upstream that fails.
    pub(super) fn of_upstream(url: &str, source: GitError) -> Self {
        let url = url.to_owned();
        match source {
            GitError::Failed { stderr, .. }
                if NOT_FOUND.iter().any(|text| stderr.contains(text)) =>
            {
                Self::NotFound { url }
            }
            source => Self::Upstream { url, source },
        }
    }
}
