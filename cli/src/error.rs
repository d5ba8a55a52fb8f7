//! The border to the person: one message, one hint, one exit code.

use std::process::ExitCode;

use cachewfs_fuse::MountError;
use cachewfs_fuse::control::{BindError, ClientError, ConnectError};

use crate::output;

/// Errors that the CLI itself finds.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Nothing is mounted that could be asked.
    #[error("no cachewfs mount is running here")]
    NoMount,
    /// More than one mount could be meant.
    #[error("several mounts are running: {mounts}")]
    SeveralMounts {
        /// Their mount points.
        mounts: String,
    },
    /// A mount is in the mount table, but can't be asked.
    #[error("can't ask the mount at {mount_point}")]
    CantConnect {
        /// The mount point.
        mount_point: String,
        /// Why not.
        source: ConnectError,
    },
    /// A mount of another user, where this user's mounts don't listen.
    #[error("the mount at {mount_point} belongs to another user (uid {uid})")]
    ForeignMount {
        /// The mount point.
        mount_point: String,
        /// The user who mounted.
        uid: u32,
    },
    /// A text is not the URL or the name of a repository.
    #[error("{url:?} is not the URL of a repository")]
    BadUrl {
        /// The text.
        url: String,
        /// What is wrong with it.
        source: cachewfs_format::Error,
    },
    /// The directory to clone into is in use.
    #[error("{directory} exists and is not empty")]
    NotEmpty {
        /// The directory.
        directory: String,
    },
    /// A mount option is unknown or malformed.
    #[error("mount option {option:?}: {reason}")]
    BadOption {
        /// The option, as given.
        option: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A program that was run failed.
    #[error("{program} failed{details}")]
    ProgramFailed {
        /// What was run.
        program: String,
        /// What it said, after a colon; empty if nothing.
        details: String,
    },
    /// A clone was made, but git can't write all of its files.
    #[error("{directory} has the whole history, but git can't check out its files: {details}")]
    CheckoutFailed {
        /// The clone.
        directory: String,
        /// Why not.
        details: String,
    },
    /// The process that was to serve the mount ended before it worked.
    #[error("{message}")]
    NotMounted {
        /// What it said.
        message: String,
    },
    /// The person pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// The output can't be written.
    #[error("can't write the output")]
    Output(#[source] std::io::Error),
}

/// At most so many lines of what another program said.
const MAX_LINES: usize = 50;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NO_MOUNT: u8 = 3;
const NO_REPOSITORY: u8 = 4;

/// Prints an error with its causes, says what to do next, and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    let (code, hint) = code_and_hint(error);
    print(error);
    if let Some(hint) = hint {
        output::error(&format!("  {hint}"));
    }
    ExitCode::from(code)
}

/// Returns whether the program that reads the output has seen enough, as `head` has.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = std::io::ErrorKind::BrokenPipe;
    matches!(error.downcast_ref(), Some(CliError::Output(error)) if error.kind() == closed)
}

/// Prints an error and its causes: in one line, unless another program said it.
fn print(error: &anyhow::Error) {
    let text = format!("cachewfs: {error:#}");
    let indent = match error.downcast_ref() {
        Some(CliError::ProgramFailed { .. }) => "    ",
        // The process in the background has laid out its message already.
        Some(CliError::NotMounted { .. }) => "",
        _ => return output::error(&text),
    };
    for (number, line) in text.lines().take(MAX_LINES).enumerate() {
        let indent = if number == 0 { "" } else { indent };
        output::error(&format!("{indent}{line}"));
    }
}

fn code_and_hint(error: &anyhow::Error) -> (u8, Option<&'static str>) {
    if let Some(error) = error.downcast_ref::<CliError>() {
        return cli_code_and_hint(error);
    }
    if let Some(error) = error.downcast_ref::<ClientError>() {
        return client_code_and_hint(error);
    }
    match error.downcast_ref::<MountError>() {
        Some(error) => (FAILED, mount_hint(error)),
        None => (FAILED, None),
    }
}

fn cli_code_and_hint(error: &CliError) -> (u8, Option<&'static str>) {
    match error {
        CliError::NoMount => (
            NO_MOUNT,
            Some("start one: cachewfs mount http://HOST:PORT MOUNTPOINT"),
        ),
        CliError::SeveralMounts { .. } => (USAGE, Some("say which: --mount MOUNTPOINT")),
        CliError::CantConnect { source, .. } => (NO_MOUNT, Some(connect_hint(source))),
        CliError::ForeignMount { .. } => (NO_MOUNT, Some("ask as that user")),
        CliError::BadUrl { .. } => (
            USAGE,
            Some("write it as https://github.com/org/repo or github.com/org/repo"),
        ),
        CliError::NotEmpty { .. } => (FAILED, Some("name another directory")),
        CliError::BadOption { .. } => (USAGE, Some("`cachewfs mount --help` lists the options")),
        CliError::CheckoutFailed { .. } => (
            FAILED,
            Some("look with `git ls-files`; write single files: git restore --source=HEAD -- FILE"),
        ),
        CliError::ProgramFailed { .. }
        | CliError::NotMounted { .. }
        | CliError::Interrupted
        | CliError::Output(_) => (FAILED, None),
    }
}

fn connect_hint(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Dead(_) => {
            "unmount it (umount MOUNTPOINT), then mount again: nothing is lost"
        }
        ConnectError::Place(_) => SOCKET_DIRECTORY_HINT,
        ConnectError::Stranger { .. } => "tell an administrator: that user poses as the mount",
        ConnectError::Denied => "ask as that user or as root, or mount with -o allow_other",
    }
}

/// The way out if the directory for control sockets can't be trusted.
const SOCKET_DIRECTORY_HINT: &str = "set XDG_RUNTIME_DIR to a directory of yours with mode 0700, such as \
                          /run/user/UID, or have the directory removed: rm -r";

fn client_code_and_hint(error: &ClientError) -> (u8, Option<&'static str>) {
    match error {
        ClientError::Failed(message) if message.contains("there is no repository") => (
            NO_REPOSITORY,
            Some("check the spelling, and that the daemon may read it upstream"),
        ),
        ClientError::Failed(_) => (FAILED, None),
        ClientError::Lost(_) | ClientError::Silent => {
            (NO_MOUNT, Some("see its log; mounting again is enough"))
        }
        ClientError::BadReply(_) => (FAILED, Some("unmount, and mount with this version")),
    }
}

fn mount_hint(error: &MountError) -> Option<&'static str> {
    match error {
        MountError::MountPoint { .. } => Some("make the directory first: mkdir MOUNTPOINT"),
        MountError::Cache { .. } => {
            Some("name a directory that only you can write: -o cache_dir=DIR")
        }
        MountError::Mount { .. } => {
            Some("as root it needs /dev/fuse; as a user, the package fuse3")
        }
        MountError::Token { .. } => {
            Some("name a file that has the daemon's token: -o token_file=FILE")
        }
        MountError::Control { source, .. } => match source {
            BindError::Place(_) => Some(SOCKET_DIRECTORY_HINT),
            BindError::InUse | BindError::Io(_) => None,
        },
        MountError::Http(_) | MountError::Session(_) => None,
    }
}
