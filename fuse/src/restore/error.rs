//! [`RestoreError`]: why a snapshot can't be restored.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use cachewfs_format::Error as FormatError;
use cachewfs_format::api::code;

use crate::fetch::FetchError;
use crate::mount::MountError;
use crate::repository::RepoError;
use crate::segment::ReadError;
use crate::view::LoadError;

/// Why a snapshot can't be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The cache, the token or the HTTP client can't be set up.
    #[error(transparent)]
    SetUp(#[from] MountError),
    /// The daemon says that there is no such repository, or that it won't mirror it.
    #[error("there is no repository {name}: {message}")]
    NoRepository {
        /// The requested name.
        name: String,
        /// The daemon's explanation.
        message: String,
    },
    /// The daemon wants a token, or another one.
    #[error("the daemon refuses the token, or wants one: {message}")]
    Unauthenticated {
        /// The daemon's explanation.
        message: String,
    },
    /// The daemon doesn't get a ref or a commit that the restore waits for.
    #[error("{missing}, after {minutes} min")]
    NotThere {
        /// A sentence about the ref or commit.
        missing: String,
        /// How long the restore waited.
        minutes: u64,
    },
    /// The snapshot can't be fetched.
    #[error("can't fetch {name}")]
    Fetch {
        /// The requested name.
        name: String,
        /// The reason.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A file can't be written.
    #[error("can't write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// The disk has no room for the bytes that arrived.
    #[error("can't keep what was fetched")]
    Disk(#[source] io::Error),
    /// The archive has a file that git would not accept.
    #[error("the archive is malformed: its file {path:?}")]
    Path {
        /// The path in the archive.
        path: String,
        /// The reason.
        source: FormatError,
    },
}

impl RestoreError {
    /// Returns the error of fetching a part of the repository `name`.
    pub(super) fn of_read(name: &str, error: ReadError) -> Self {
        match error {
            ReadError::Cache(error) | ReadError::NotKept(error) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                Self::Disk(copy)
            }
            error => Self::Fetch {
                name: name.to_owned(),
                source: error.into(),
            },
        }
    }

    /// Returns the error of loading the repository `name`.
    pub(super) fn of_load(name: &str, error: LoadError) -> Self {
        let name = name.to_owned();
        if let LoadError::Fetch(error) = &error
            && let FetchError::Refused { code, message } = &**error
            && code == code::UNAUTHENTICATED
        {
            let message = message.clone();
            return Self::Unauthenticated { message };
        }
        match RepoError::from_load(&name, error) {
            RepoError::NotFound { name, message, .. } => Self::NoRepository { name, message },
            RepoError::Load { source, .. } => match source {
                LoadError::Read(error) => Self::of_read(&name, error),
                source => Self::Fetch {
                    name,
                    source: source.into(),
                },
            },
            error => Self::Fetch {
                name,
                source: error.into(),
            },
        }
    }
}

/// Returns a function for `map_err` that makes an error of an I/O error at `path`.
pub(super) fn write_error<E: Into<io::Error>>(
    path: &Path,
) -> impl FnOnce(E) -> RestoreError + use<E> {
    let path = path.to_owned();
    move |source| RestoreError::Write {
        path,
        source: source.into(),
    }
}
