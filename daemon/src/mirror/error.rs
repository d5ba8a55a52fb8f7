//! Why a mirror can't be made or updated.

use std::path::PathBuf;

use super::GitError;

/// Why a mirror can't be made or updated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MirrorError {
    #[error("upstream has no repository at {url}, or doesn't show it without credentials")]
    NotFound { url: String },
    #[error("upstream refuses the daemon access to {url}")]
    Denied { url: String, source: GitError },
    #[error("upstream {url} can't be reached")]
    Unreachable { url: String, source: GitError },
    #[error("upstream {url} was too slow")]
    TimedOut { url: String, source: GitError },
    #[error("upstream {url} failed")]
    Upstream { url: String, source: GitError },
    #[error("upstream {url} says that HEAD is {name:?}, which no ref can be called")]
    BadHead { url: String, name: String },
    #[error("the mirror failed")]
    Git(#[from] GitError),
    #[error("can't write {path}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// What git, or the server through it, says when there is no such repository (`LC_ALL=C`).
/// A server that wants a password for it, as GitHub does, says no more than that.
const NOT_FOUND: &[&str] = &[
    "' not found",
    "Repository not found",
    "does not appear to be a git repository",
    "could not read Username",
    "returned error: 404",
    "returned error: 410",
];
/// What is said when the credentials are not good enough.
const DENIED: &[&str] = &[
    "returned error: 401",
    "returned error: 403",
    "Authentication failed",
    "Access denied",
    "Permission denied",
    "could not read Password",
];
/// What git says of its own disk.
const DISK_FULL: &[&str] = &[
    "No space left on device",
    "Disk quota exceeded",
    // Of git itself, if the disk took no byte at all.
    "Out of diskspace",
];
const TIMED_OUT: &[&str] = &["timed out", "Operation too slow"];
/// What is left of "unable to access" and the like is the way to upstream.
const UNREACHABLE: &[&str] = &[
    "unable to access",
    "Could not resolve",
    "Connection refused",
    "Connection reset",
    "No route to host",
    "Network is unreachable",
];

impl MirrorError {
    /// Tells whose fault it is that a command failed that talks to upstream.
    pub(super) fn of_upstream(url: &str, source: GitError) -> Self {
        let url = url.to_owned();
        let GitError::Failed { stderr, .. } = &source else {
            return match source {
                GitError::TimedOut { .. } => Self::TimedOut { url, source },
                GitError::Spawn { .. } | GitError::Stopped { .. } => Self::Git(source),
                source => Self::Upstream { url, source },
            };
        };
        let says = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text));
        if says(DISK_FULL) {
            Self::Git(source)
        } else if says(NOT_FOUND) {
            Self::NotFound { url }
        } else if says(DENIED) {
            Self::Denied { url, source }
        } else if says(TIMED_OUT) {
            Self::TimedOut { url, source }
        } else if !says(&["returned error: "]) && says(UNREACHABLE) {
            Self::Unreachable { url, source }
        } else {
            Self::Upstream { url, source }
        }
    }
}

/// Whether `error`, or what caused it, is a disk without room.
pub(crate) fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    if let Some(error) = error.downcast_ref::<std::io::Error>() {
        return matches!(error.kind(), StorageFull | QuotaExceeded);
    }
    if let Some(GitError::Failed { stderr, .. }) = error.downcast_ref() {
        return DISK_FULL.iter().any(|text| stderr.contains(text));
    }
    error.source().is_some_and(is_disk_full)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn failed(stderr: &str) -> MirrorError {
        let source = GitError::Failed {
            command: "fetch".to_owned(),
            status: std::process::ExitStatus::from_raw(128 << 8),
            stderr: stderr.to_owned(),
        };
        MirrorError::of_upstream("https://example.com/a", source)
    }

    #[test]
    fn tells_whose_fault_it_is() {
        use MirrorError::{Denied, Git, NotFound, TimedOut, Unreachable, Upstream};

        let access = "fatal: unable to access 'https://example.com/a/': ";
        let said = |rest: &str| failed(&format!("{access}{rest}"));
        let refused = "Failed to connect to example.com port 443: Connection refused";
        assert!(matches!(said(refused), Unreachable { .. }));
        let unknown = "Could not resolve host: example.com";
        assert!(matches!(said(unknown), Unreachable { .. }));
        let status = |number| said(&format!("The requested URL returned error: {number}"));
        assert!(matches!(status(500), Upstream { .. }));
        assert!(matches!(status(403), Denied { .. }));
        assert!(matches!(status(404), NotFound { .. }));
        let slow = "Operation too slow. Less than 1000 bytes/sec transferred the last 60 seconds";
        assert!(matches!(said(slow), TimedOut { .. }));
        let full = failed("fatal: write error: No space left on device\nfatal: early EOF");
        assert!(matches!(&full, Git(_)) && is_disk_full(&full));
        let full = failed("fatal: sha1 file 'tmp_pack_x' write error. Out of diskspace");
        assert!(matches!(&full, Git(_)) && is_disk_full(&full));
        assert!(!is_disk_full(&said(refused)));
    }

    #[test]
    fn a_full_disk_is_seen_below_other_errors() {
        let source = std::io::Error::from_raw_os_error(28);
        let path = PathBuf::from("x");

        assert!(is_disk_full(&MirrorError::Io { path, source }));
    }
}
