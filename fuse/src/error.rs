//! What the caller of a system call sees of an error.

use cachewfs_format::api::code;
use fuser::Errno;

use crate::fetch::FetchError;
use crate::repository::RepoError;
use crate::segment::ReadError;
use crate::view::LoadError;

/// Why a call of the file system fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FsError {
    /// There is no such name.
    #[error("no such file or directory")]
    NoEntry,
    /// The kernel names an inode that is not known.
    #[error("unknown inode {ino}")]
    UnknownInode {
        /// The inode.
        ino: u64,
    },
    /// A file is used as a directory.
    #[error("not a directory")]
    NotADirectory,
    /// A directory is used as a file.
    #[error("is a directory")]
    IsADirectory,
    /// Nothing came before the deadline; the work goes on.
    #[error("no answer within the deadline")]
    TimedOut,
    /// The code that answers the call panicked.
    #[error("the call panicked: please report this bug")]
    Panicked,
    /// A repository can't be shown.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// A snapshot can't be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Content can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A daemon can't be asked.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl FsError {
    /// The errno of the system call.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::NoEntry => Errno::ENOENT,
            Self::UnknownInode { .. } => Errno::ESTALE,
            Self::NotADirectory => Errno::ENOTDIR,
            Self::IsADirectory => Errno::EISDIR,
            Self::TimedOut => Errno::EAGAIN,
            Self::Repo(error) => of_repo(error),
            Self::Load(error) => of_load(error),
            Self::Read(_) | Self::Panicked => Errno::EIO,
            Self::Fetch(error) => of_fetch(error),
        }
    }

    /// Whether the caller asked for something that is not there, which is nobody's fault.
    pub(crate) fn is_expected(&self) -> bool {
        let missing_repo = matches!(self, Self::Repo(RepoError::NotFound { .. }));
        missing_repo || matches!(self, Self::NoEntry | Self::IsADirectory)
    }
}

fn of_repo(error: &RepoError) -> Errno {
    match error {
        RepoError::NotFound { .. } => Errno::ENOENT,
        RepoError::NotReady { .. } => Errno::EAGAIN,
        RepoError::Load { source, .. } => of_load(source),
    }
}

fn of_load(error: &LoadError) -> Errno {
    match error {
        LoadError::Fetch(error) => of_fetch(error),
        LoadError::Read(_) | LoadError::Format(_) | LoadError::WrongRepo { .. } => Errno::EIO,
    }
}

fn of_fetch(error: &FetchError) -> Errno {
    match error {
        FetchError::Unreachable { .. } => Errno::EHOSTUNREACH,
        FetchError::NotYet { .. } => Errno::EAGAIN,
        FetchError::Refused { code, .. }
            if [code::UNAUTHENTICATED, code::FORBIDDEN].contains(&&**code) =>
        {
            Errno::EACCES
        }
        // An empty repository, say: it exists, but has nothing to show.
        FetchError::Refused { .. } => Errno::ENODATA,
        FetchError::Failed { .. }
        | FetchError::Status { .. }
        | FetchError::Cut { .. }
        | FetchError::TooLong { .. }
        | FetchError::NotJson { .. }
        | FetchError::Broken { .. }
        | FetchError::Direct(_)
        | FetchError::TimedOut { .. }
        | FetchError::Ending => Errno::EIO,
    }
}
