//! Why a git command failed.

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
    #[error("talking to git {command} failed")]
    Pipe {
        command: String,
        source: std::io::Error,
    },
    #[error("git {command} was stopped after its time limit of {}", humantime::format_duration(*.limit))]
    TimedOut { command: String, limit: Duration },
    #[error("git {command} was stopped, because the daemon stops")]
    Stopped { command: String },
    #[error("git {command} printed more than {MAX_OUTPUT_LEN} bytes")]
    TooMuchOutput { command: String },
    #[error("there are no credentials for it")]
    Credentials(#[source] CredentialError),
    #[error("git {command} found no room on the disk: {stderr}")]
    DiskFull { command: String, stderr: String },
    #[error("git {command} failed with more than half of the {} MiB of memory that it may take: {stderr}", .limit >> 20)]
    OutOfMemory {
        command: String,
        /// In bytes, of each process.
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
    /// Returns the exit code of a git that failed by itself; `None` for other failures.
    ///
    /// Callers decide by this code and by files on disk, never by `stderr`: versions of git differ in
    /// their messages.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Failed { status, .. } => status.code(),
            _ => None,
        }
    }

    /// What failed, for traces.
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
