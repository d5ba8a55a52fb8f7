//! Errors of git commands.

use std::process::ExitStatus;
use std::time::Duration;

use super::CredentialError;
use super::process::MAX_OUTPUT_LEN;

/// Why a git command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    #[error("can't run git {command}: is git installed?")]
    Spawn {
        command: String,
        source: std::io::Error,
    },
    #[error("reading from or writing to git {command} failed")]
    Pipe {
        command: String,
        source: std::io::Error,
    },
    #[error(
        "git {command} was killed after its time limit of {}",
        humantime::format_duration(*.limit)
    )]
    TimedOut { command: String, limit: Duration },
    #[error("git {command} was killed because the daemon is stopping")]
    Stopped { command: String },
    #[error("git {command} printed more than {MAX_OUTPUT_LEN} bytes")]
    TooMuchOutput { command: String },
    #[error("no credentials for upstream are available")]
    Credentials(#[source] CredentialError),
    #[error("git {command} failed because the disk is full: {stderr}")]
    DiskFull { command: String, stderr: String },
    #[error(
        "git {command} failed after using more than half of its memory limit of {} MiB: {stderr}",
        .limit >> 20
    )]
    OutOfMemory {
        command: String,
        /// The limit of each process, in bytes.
        limit: u64,
        stderr: String,
    },
    #[error("git {command} failed ({status}): {stderr}")]
    Failed {
        command: String,
        status: ExitStatus,
        stderr: String,
    },
}

impl GitError {
    /// Returns the exit code of a git that failed by itself, or `None` for other failures.
    ///
    /// Callers decide by this code and by files on disk, never by `stderr`: the messages differ
    /// between versions of git.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Failed { status, .. } => status.code(),
            _ => None,
        }
    }

    /// Returns the kind of the failure, for traces.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Spawn { .. } => "spawn",
            Self::Pipe { .. } => "pipe",
            Self::TimedOut { .. } => "timed_out",
            Self::Stopped { .. } => "stopping",
            Self::TooMuchOutput { .. } => "too_much_output",
            Self::Credentials(_) => "credentials",
            Self::DiskFull { .. } => "disk_full",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::Failed { .. } => "failed",
        }
    }
}
