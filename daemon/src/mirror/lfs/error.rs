//! Errors of fetching LFS objects.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::mirror::GitError;

/// Why LFS objects can't be fetched. Clients see these errors, so they quote nothing from a
/// response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LfsFetchError {
    #[error("git can't tell the URL and credentials of upstream")]
    Git(#[source] GitError),
    #[error("upstream's LFS server didn't return the URLs of the objects")]
    Batch,
    #[error("can't download the object {oid} from the URL that upstream's LFS server named")]
    Download { oid: String },
    #[error("the LFS objects did not arrive within {}", humantime::format_duration(*.limit))]
    TooSlow { limit: Duration },
    #[error("can't set up the HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("can't read or write {path}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl LfsFetchError {
    /// Returns a function for `map_err` that makes an error at `path`.
    pub(super) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}
