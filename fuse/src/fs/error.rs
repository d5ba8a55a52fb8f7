//! The errors of file system calls, and the errno that each becomes.

use cachewfs_format::api::code;
use fuser::Errno;

use crate::fetch::FetchError;
use crate::ino::Ino;
use crate::repository::RepoError;
use crate::segment::ReadError;
use crate::view::LoadError;

/// Why a file system call fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FsError {
    /// The directory has no such name.
    #[error("no such file or directory")]
    NoEntry,
    /// The kernel names an inode that this process doesn't know.
    #[error("unknown inode or file handle {ino}")]
    UnknownInode {
        /// The number of the inode.
        ino: Ino,
    },
    /// A file is used as a directory.
    #[error("not a directory")]
    NotADirectory,
    /// A directory is used as a file.
    #[error("is a directory")]
    IsADirectory,
    /// The deadline of the call passed. The work goes on, so a retry may find it done.
    #[error("no answer within the deadline")]
    TimedOut,
    /// The machine sleeps soon, so no call may wait.
    #[error("the machine is about to sleep")]
    Released,
    /// The process that made the call was killed, so nobody gets the answer.
    #[error("the caller was killed")]
    Killed,
    /// The code that answers the call panicked.
    #[error("the call panicked: please report this bug")]
    Panicked,
    /// A repository can't be shown.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The snapshot can't be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The content of a segment can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A request to the daemons failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl FsError {
    /// Returns the errno that the system call fails with.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::NoEntry => Errno::ENOENT,
            Self::UnknownInode { .. } => Errno::ESTALE,
            Self::NotADirectory => Errno::ENOTDIR,
            Self::IsADirectory => Errno::EISDIR,
            Self::TimedOut => Errno::EAGAIN,
            Self::Killed => Errno::EINTR,
            Self::Repo(error) => of_repo(error),
            Self::Load(error) => of_load(error),
            Self::Read(_) | Self::Panicked | Self::Released => Errno::EIO,
            Self::Fetch(error) => of_fetch(error),
        }
    }

    /// Returns whether the error isn't logged: it is an ordinary answer, such as a missing name, or
    /// part of an outage, which is logged once for all.
    pub(crate) fn is_expected(&self) -> bool {
        if let Self::Repo(error) = self {
            return matches!(error, RepoError::NotFound { .. }) || error.is_outage();
        }
        matches!(self, Self::NoEntry | Self::IsADirectory | Self::Killed)
    }
}

fn of_repo(error: &RepoError) -> Errno {
    match error {
        RepoError::NotFound { .. } => Errno::ENOENT,
        RepoError::NotReady { .. } => Errno::EAGAIN,
        RepoError::Load { source, .. } => of_load(source),
        RepoError::Offline { .. } => Errno::EHOSTUNREACH,
        RepoError::Hosts(error) | RepoError::Unreachable(error) => of_fetch(error),
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
        // For example an empty repository: it exists, so ENOENT would be untrue.
        FetchError::Refused { .. } => Errno::ENODATA,
        FetchError::Failed { .. }
        | FetchError::Status { .. }
        | FetchError::Cut { .. }
        | FetchError::TooLong { .. }
        | FetchError::NotJson { .. }
        | FetchError::Broken { .. }
        | FetchError::Direct(_)
        | FetchError::TimedOut { .. }
        | FetchError::Silent { .. }
        | FetchError::Ending => Errno::EIO,
    }
}
