//! How the program reports a failure: one message, at most one hint, and one exit code.
//!
//! The matches have no `_` arm. A new error variant compiles only after it has a hint and a code
//! here.

use std::io::ErrorKind;
use std::process::ExitCode;

use cachewfs_format::api::code;
use cachewfs_fuse::control::{BindError, ClientError, ConnectError};
use cachewfs_fuse::{MountError, RestoreError};

use crate::error::CliError;
use crate::exit_code::{FAILED, NO_MOUNT, NO_REPOSITORY, USAGE};
use crate::failure::{Failure, SpokenLine};
use crate::output;
use crate::speech::Speech;

/// At most this many lines of another program's error output are printed.
const MAX_LINES: usize = 50;

/// Prints an error with its causes and a hint on what to do next. Returns the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    ExitCode::from(print(error, failure(error)))
}

/// Reports wrong arguments, and returns the exit code. The arguments may have asked for help
/// instead.
pub(crate) fn report_arguments(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && Speech::chosen().is_json {
        let failure = Failure::of_arguments(error);
        let code = failure.exit_code;
        output::json_error(&SpokenLine::Error(failure));
        return ExitCode::from(code);
    }
    // If standard error is closed, there is no other place to report that.
    error.print().ok();
    if error.use_stderr() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

fn failure(error: &anyhow::Error) -> Failure {
    if let Some(CliError::NotMounted { failure }) = error.downcast_ref() {
        return failure.clone();
    }
    let (code, hint) = code_and_hint(error);
    Failure::new(code, format!("{error:#}"), hint.map(str::to_owned))
}

/// Returns whether the reader of the output has closed its end of the pipe, as `head` does.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = ErrorKind::BrokenPipe;
    matches!(error.downcast_ref(), Some(CliError::Output(error)) if error.kind() == closed)
}

/// Prints an error with its causes and the next step, and returns the exit code. The text of the
/// error is one line, unless another program printed it.
fn print(error: &anyhow::Error, failure: Failure) -> u8 {
    let code = failure.exit_code;
    if Speech::chosen().is_json {
        output::json_error(&SpokenLine::Error(failure));
        return code;
    }
    let text = format!("cachewfs: {}", failure.message);
    match error.downcast_ref() {
        Some(CliError::ProgramFailed { .. } | CliError::NotMounted { .. }) => {
            for (number, line) in text.lines().take(MAX_LINES).enumerate() {
                let indent = if number == 0 { "" } else { "    " };
                output::error(&format!("{indent}{line}"));
            }
        }
        _ => output::error(&text),
    }
    if let Some(next_step) = failure.next_step {
        output::error(&format!("  {next_step}"));
    }
    code
}

/// Returns the next step after an error, if there is one.
pub(crate) fn hint(error: &anyhow::Error) -> Option<&'static str> {
    code_and_hint(error).1
}

fn code_and_hint(error: &anyhow::Error) -> (u8, Option<&'static str>) {
    if let Some(error) = error.downcast_ref::<CliError>() {
        return (cli_code(error), cli_hint(error));
    }
    if let Some(error) = error.downcast_ref::<ClientError>() {
        return client_code_and_hint(error);
    }
    if let Some(error) = error.downcast_ref::<RestoreError>() {
        return restore_code_and_hint(error);
    }
    match error.downcast_ref::<MountError>() {
        Some(error) => (FAILED, mount_hint(error)),
        None => (FAILED, None),
    }
}

fn cli_code(error: &CliError) -> u8 {
    match error {
        CliError::NoMount
        | CliError::NoMountAnswers
        | CliError::CloneWithoutMount { .. }
        | CliError::SilentMount { .. }
        | CliError::CantConnect { .. }
        | CliError::ForeignMount { .. }
        | CliError::NotAMount { .. }
        | CliError::HiddenSocket { .. }
        | CliError::BindMount { .. } => NO_MOUNT,
        CliError::SeveralMounts { .. }
        | CliError::BadUrl { .. }
        | CliError::LocalPath { .. }
        | CliError::NoRepositoryAtPath { .. }
        | CliError::BadDaemonUrl { .. }
        | CliError::NoDaemon
        | CliError::WrongArguments { .. }
        | CliError::BadDate { .. }
        | CliError::BadOption { .. } => USAGE,
        CliError::CopyWithoutObjects
        | CliError::Incomplete { .. }
        | CliError::NoBranch { .. }
        | CliError::NotOpened { .. }
        | CliError::AlreadyMounted { .. }
        | CliError::NotEmpty { .. }
        | CliError::CommitNotReached { .. }
        | CliError::ChangesInTheWay { .. }
        | CliError::OwnCommits { .. }
        | CliError::OtherBranch { .. }
        | CliError::OtherRestore { .. }
        | CliError::NothingBorrowed { .. }
        | CliError::DissociatedTwice { .. }
        | CliError::NoRoom { .. }
        | CliError::RestoredTwice { .. }
        | CliError::RestoreInterrupted { .. }
        | CliError::NotUpToDate { .. }
        | CliError::CheckoutFailed { .. }
        | CliError::ProgramFailed { .. }
        | CliError::NotMounted { .. }
        | CliError::Log { .. }
        | CliError::Unwell { .. }
        | CliError::Damaged { .. }
        | CliError::Interrupted
        | CliError::Output(_) => FAILED,
    }
}

#[expect(clippy::too_many_lines, reason = "one arm for each error")]
fn cli_hint(error: &CliError) -> Option<&'static str> {
    Some(match error {
        CliError::NoMount => "start one: cachewfs mount http://HOST:PORT MOUNTPOINT",
        CliError::CloneWithoutMount { .. } => {
            "mount it there again: cachewfs mount http://HOST:PORT MOUNTPOINT. Until then git \
             reports missing objects, and `git fetch` fetches the whole history"
        }
        CliError::CopyWithoutObjects => {
            "make a clone instead: cachewfs clone URL. Or write the path of the mounted \
             repository and /.git/cachewfs/objects into .git/objects/info/alternates here"
        }
        CliError::SeveralMounts { .. } => "choose one: --mount MOUNTPOINT",
        CliError::SilentMount { .. } => SILENT_HINT,
        CliError::CantConnect { source, .. } => connect_hint(source),
        CliError::ForeignMount { .. } => "run this command as that user, without sudo",
        CliError::NotAMount { .. } => "`findmnt -t fuse.cachewfs` lists the mounts",
        CliError::HiddenSocket { .. } => {
            "it was mounted with another XDG_RUNTIME_DIR or TMPDIR, or in a container: run this \
             command in the same environment"
        }
        CliError::BindMount { .. } => {
            "run this command where the mount itself is visible; umount(8) removes a bind mount"
        }
        CliError::Incomplete {
            is_pinned: true, ..
        } => "it is pinned: the mount goes on trying, and `cachewfs status` shows how far it is",
        CliError::Incomplete { .. } => "run the command again to fetch the rest",
        CliError::BadUrl { .. } => "write it as https://github.com/org/repo or github.com/org/repo",
        CliError::LocalPath { .. } => {
            "for a repository on this machine, use `git clone`; or let a mount mirror it: \
             cachewfs mount --local DIR --upstream HOST=file:///PATH MOUNTPOINT"
        }
        CliError::NoRepositoryAtPath { .. } => {
            "write the path of a repository: MOUNTPOINT/github.com/org/repo"
        }
        CliError::NoBranch { .. } => {
            "if it is new, run `cachewfs refresh` first: the mount may not show it yet"
        }
        CliError::BadDaemonUrl { .. } => {
            "write it as http://HOST:8080; for example: cachewfs mount http://HOST:8080 MOUNTPOINT"
        }
        CliError::AlreadyMounted { .. } => {
            "use it as it is, restart it with `cachewfs mount --replace MOUNTPOINT`, or unmount it \
             first: cachewfs umount MOUNTPOINT"
        }
        CliError::NoDaemon => {
            "name one: cachewfs restore --daemon http://HOST:8080 URL, or set CACHEWFS_DAEMON"
        }
        CliError::RestoredTwice { .. } => "wait for it, or choose another directory",
        CliError::RestoreInterrupted { .. } => {
            "run the same command again to go on, or remove that directory"
        }
        CliError::NotUpToDate { .. } => {
            "run `git fetch` there yourself; with --no-fetch, restore leaves it out"
        }
        CliError::NotEmpty { .. } | CliError::OtherRestore { .. } => "choose another directory",
        CliError::CommitNotReached { .. } => {
            "push it to a branch or tag, or fetch it there: git fetch origin COMMIT"
        }
        CliError::ChangesInTheWay { .. } => {
            "commit them on a branch, or put them away with `git stash -u`; with --force, restore \
             overwrites them"
        }
        CliError::OwnCommits { .. } => {
            "use `git fetch` and `git rebase`; with --force, restore moves the branch, and only \
             `git reflog` still names the commits"
        }
        CliError::OtherBranch { .. } => "switch to it first; with --force, restore does",
        CliError::BadDate { .. } => "for example: --since 2w, --since 2026-10-01",
        CliError::NothingBorrowed { .. } => {
            "`cat .git/objects/info/alternates` in a clone shows what it borrows"
        }
        CliError::DissociatedTwice { .. } => "wait for it",
        CliError::NoRoom { .. } => "make room, or keep the mount: the clone works with it",
        CliError::BadOption { .. } => "`cachewfs mount --help` lists the options",
        CliError::Log { .. } => "name a file in a directory that exists: -o log=FILE",
        CliError::WrongArguments { .. } => "`cachewfs mount --help` shows the arguments",
        CliError::CheckoutFailed { .. } => {
            "`git ls-files` lists the files; check out single ones with: \
             git restore --source=HEAD -- FILE"
        }
        CliError::NotOpened { .. } => {
            "list its files, or fetch what a checkout needs: cachewfs prefetch URL"
        }
        CliError::NoMountAnswers
        | CliError::ProgramFailed { .. }
        | CliError::NotMounted { .. }
        | CliError::Unwell { .. }
        | CliError::Damaged { .. }
        | CliError::Interrupted
        | CliError::Output(_) => return None,
    })
}

fn restore_code_and_hint(error: &RestoreError) -> (u8, Option<&'static str>) {
    const AGAIN: &str = "run the same command again: it goes on where it stopped";
    match error {
        RestoreError::NoRepository { .. } => (
            NO_REPOSITORY,
            Some("check its spelling, and check that the daemon may read it from upstream"),
        ),
        RestoreError::Unauthenticated { .. } => {
            (FAILED, Some("give the daemon's token: --token-file FILE"))
        }
        RestoreError::SetUp(MountError::Token { .. }) => (
            FAILED,
            Some("name a file that contains the daemon's token: --token-file FILE"),
        ),
        RestoreError::NotThere { .. } => (
            FAILED,
            Some("check the id and the name, and whether they were pushed"),
        ),
        RestoreError::Fetch { .. } => (FAILED, Some(AGAIN)),
        RestoreError::Write { .. } | RestoreError::Disk(_) => (
            FAILED,
            Some(
                "nothing that was fetched is lost: make room or mend the disk, and run the same \
                 command again",
            ),
        ),
        RestoreError::Path { .. } => (
            FAILED,
            Some("tell the operator of the daemon: it publishes an archive that it should not"),
        ),
        RestoreError::SetUp(error) => (FAILED, mount_hint(error)),
    }
}

fn connect_hint(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::NotMounted => {
            "`cachewfs status` without --mount finds the mount, if one is running"
        }
        ConnectError::Dead(_) => {
            "unmount it (umount MOUNTPOINT) and mount it again: no data is lost"
        }
        ConnectError::SocketDirectory(_) => SOCKET_DIRECTORY_HINT,
        ConnectError::Stranger { .. } => {
            "tell an administrator: that user's process pretends to be the mount"
        }
        ConnectError::Denied => {
            "run this command as that user or as root, or mount with -o allow_other"
        }
    }
}

/// The next step if other users may write to the directory for control sockets.
const SOCKET_DIRECTORY_HINT: &str = "set XDG_RUNTIME_DIR to a directory of your own with mode \
    0700, such as /run/user/UID, or ask its owner or root to remove the directory: rm -r";

/// The next step if a mount's process doesn't answer.
const SILENT_HINT: &str = "if its process is stopped or frozen, let it go on (kill -CONT, \
    systemctl thaw, docker unpause); otherwise end it (kill -9): another process goes on with the \
    mount, or you mount it again. No data is lost";

fn client_code_and_hint(error: &ClientError) -> (u8, Option<&'static str>) {
    match error {
        ClientError::Failed(message) if message.contains("there is no repository") => (
            NO_REPOSITORY,
            Some("check its spelling, and check that the daemon may read it from upstream"),
        ),
        ClientError::Failed(message) if has_code(message, code::UNAUTHENTICATED) => (
            FAILED,
            Some("mount with the daemon's token: -o token_file=FILE"),
        ),
        ClientError::Failed(message) if message.starts_with("can't reach the daemon") => (
            FAILED,
            Some("`cachewfs doctor` says at which step it fails"),
        ),
        ClientError::Failed(_) => (FAILED, None),
        ClientError::Lost(_) => (
            NO_MOUNT,
            Some(
                "if the mount's process was killed, another may go on: run the command again. If \
                 nothing answers then, look into the mount's log, and mount it again",
            ),
        ),
        ClientError::Silent { .. } => (NO_MOUNT, Some(SILENT_HINT)),
        ClientError::BadReply(_) => (
            FAILED,
            Some("unmount it, and mount it again with this version of cachewfs"),
        ),
    }
}

/// Returns whether a message of the mount ends with an error code of the daemon.
fn has_code(message: &str, code: &str) -> bool {
    message.ends_with(&format!("({code})"))
}

fn mount_hint(error: &MountError) -> Option<&'static str> {
    match error {
        MountError::MountPoint { .. } => Some("create the directory first: mkdir MOUNTPOINT"),
        MountError::Cache { .. } => {
            Some("choose a directory that only you can write to: -o cache_dir=DIR")
        }
        MountError::Mount { source, .. } if source.kind() == ErrorKind::NotADirectory => {
            Some("choose a directory as the mount point")
        }
        MountError::Mount { .. } => Some(
            "root needs the device /dev/fuse; other users also need the package fuse3, \
             permission to write to MOUNTPOINT and, for allow_other, the line user_allow_other in \
             /etc/fuse.conf",
        ),
        MountError::Token { .. } => {
            Some("name a file that contains the daemon's token: -o token_file=FILE")
        }
        MountError::InUse { .. } => Some("unmount it first: cachewfs umount MOUNTPOINT"),
        MountError::Control(BindError::SocketDirectory(_)) => Some(SOCKET_DIRECTORY_HINT),
        MountError::Aborted { .. } => Some("mount it again: no data is lost"),
        MountError::NotRunning { source, .. } => Some(connect_hint(source)),
        MountError::Refused {
            source: ClientError::Failed(_),
            ..
        } => Some("it goes on as before; its user may unmount it, and mount it again"),
        MountError::Refused { source, .. } => client_code_and_hint(source).1,
        MountError::HandOver { .. } => {
            Some("try again in a moment; if it still fails, unmount it, and mount it again")
        }
        MountError::Control(BindError::Io(_))
        | MountError::Http(_)
        | MountError::Recovery { .. }
        | MountError::Session(_) => None,
    }
}
