//! Why LFS objects can't be fetched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::mirror::GitError;

/// Why LFS objects can't be fetched. Clients get to see it, so nothing in it comes from an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LfsFetchError {
    #[error("git doesn't say which URL and credentials to use")]
    Git(#[source] GitError),
    #[error("upstream's LFS server doesn't say where the objects are")]
    Batch,
    #[error("the object {oid} can't be fetched from where upstream's LFS server says that it is")]
    Download { oid: String },
    #[error("they did not come within {}", humantime::format_duration(*.limit))]
    TooSlow { limit: Duration },
    #[error("the HTTP client can't be set up")]
    Client(#[source] reqwest::Error),
    #[error("can't read or write {path}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl LfsFetchError {
    /// For `map_err`.
    pub(super) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}
