//! Errors of cloning and updating a mirror.

use std::path::PathBuf;

use cachewfs_format::RepoName;
use tracing::info;

use super::probe::{Probe, probe};
use super::{Git, GitError, Upstream};

/// Why a mirror can't be made or updated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MirrorError {
    #[error("upstream has no repository at {url}, or doesn't show it without credentials")]
    NotFound { url: String },
    #[error("upstream has the repository at {url} under another name")]
    Moved {
        url: String,
        /// The new name. Only callers that may read the repository `to` may see it.
        to: RepoName,
    },
    #[error("upstream {url} redirects to a URL that isn't a repository below its base URL")]
    Redirected { url: String },
    #[error("upstream refuses the daemon access to {url}")]
    Denied { url: String, source: GitError },
    #[error("upstream {url} can't be reached")]
    Unreachable { url: String, source: GitError },
    #[error("upstream {url} was too slow")]
    TimedOut { url: String, source: GitError },
    #[error("upstream {url} failed")]
    Upstream {
        url: String,
        /// Whether upstream answers other requests. If it does, the mirror itself may be damaged.
        is_answering: bool,
        source: GitError,
    },
    #[error("upstream {url} reports that HEAD is {name:?}, which is not a valid ref name")]
    BadHead { url: String, name: String },
    #[error("upstream {url} is a shallow clone: it lacks a part of its history")]
    Shallow { url: String },
    #[error("after git fetch, the mirror's ref {name} differs from the ref at upstream {url}")]
    LeftBehind {
        url: String,
        /// The first ref that differs.
        name: String,
    },
    #[error("a git command for the mirror failed")]
    Git(#[from] GitError),
    #[error("can't read or write {path}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl MirrorError {
    /// Returns why a command that talks to `upstream` failed. If git's exit code doesn't tell,
    /// sends a request to upstream to find out.
    pub(super) fn of_upstream(git: &Git, upstream: &Upstream, source: GitError) -> Self {
        let url = upstream.url().to_owned();
        let is_answering = match source {
            GitError::TimedOut { .. } => return Self::TimedOut { url, source },
            GitError::Spawn { .. } | GitError::Stopped { .. } | GitError::DiskFull { .. } => {
                return Self::Git(source);
            }
            // Upstream's response is the reason why git needs so much memory.
            GitError::OutOfMemory { .. }
            | GitError::Pipe { .. }
            | GitError::TooMuchOutput { .. }
            | GitError::Credentials(_) => false,
            GitError::Failed { .. } => match probe(git, upstream) {
                Probe::Missing => return Self::NotFound { url },
                Probe::Moved(to) => {
                    // Only the log has the new name: not every client may read that repository.
                    let repo = upstream.repo();
                    info!(%repo, %to, "Upstream has {repo} under the name {to}");
                    return Self::Moved { url, to };
                }
                Probe::Redirects => return Self::Redirected { url },
                Probe::At(url) => {
                    upstream.set_current_url(url);
                    true
                }
                Probe::Denied => return Self::Denied { url, source },
                Probe::Unreachable => return Self::Unreachable { url, source },
                Probe::TimedOut => return Self::TimedOut { url, source },
                Probe::Fails => false,
                Probe::Answers => true,
            },
        };
        Self::Upstream {
            url,
            is_answering,
            source,
        }
    }
}

/// Returns whether `error` or one of its causes is a full disk.
pub(crate) fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    if let Some(error) = error.downcast_ref::<std::io::Error>() {
        return matches!(error.kind(), StorageFull | QuotaExceeded);
    }
    if let Some(GitError::DiskFull { .. }) = error.downcast_ref() {
        return true;
    }
    error.source().is_some_and(is_disk_full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_seen_below_other_errors() {
        let source = std::io::Error::from_raw_os_error(28);
        let path = PathBuf::from("x");
        let of_git = GitError::DiskFull {
            command: "fetch".to_owned(),
            stderr: String::new(),
        };

        assert!(is_disk_full(&MirrorError::Io { path, source }));
        assert!(is_disk_full(&MirrorError::Git(of_git)));
    }
}
