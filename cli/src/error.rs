//! The errors that the CLI itself detects.

use cachewfs_fuse::control::ConnectError;

use crate::failure::Failure;

/// Errors that the CLI itself detects.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// No mount is running that the command could connect to.
    #[error("no cachewfs mount is running on this machine")]
    NoMount,
    /// The current directory is in a clone that borrows from a mount, and that mount is missing.
    #[error(
        "this clone borrows the objects of {repository}, a repository in a cachewfs mount that is \
         not mounted"
    )]
    CloneWithoutMount {
        /// The path of the mounted repository.
        repository: String,
    },
    /// The current directory is in a copy of a mounted repository.
    #[error("this is a copy of a repository in a cachewfs mount, without its objects")]
    CopyWithoutObjects,
    /// Several mounts are running, and the command line doesn't choose one.
    #[error("several mounts are running: {mounts}")]
    SeveralMounts { mounts: String },
    /// Several mounts are running, and none answers.
    #[error("no mount answers")]
    NoMountAnswers,
    /// The mount doesn't show the repository yet.
    #[error("nobody has opened {repo} in the mount at {mount_point} yet")]
    NotOpened { repo: String, mount_point: String },
    /// A mount took too long to tell its state.
    #[error("the mount at {mount_point} has not answered within {seconds} s")]
    SilentMount { mount_point: String, seconds: u64 },
    /// The connection to a mount's control socket failed.
    #[error("can't connect to the mount at {mount_point}")]
    CantConnect {
        mount_point: String,
        source: ConnectError,
    },
    /// No cachewfs mount is at the path.
    #[error("no cachewfs mount is at {path}")]
    NotAMount { path: String },
    /// The mount works, but this process doesn't find its control socket.
    #[error(
        "the mount at {mount_point} works, but its control socket is none that this command finds"
    )]
    HiddenSocket { mount_point: String },
    /// The path is a bind mount, and the command needs the mount itself.
    #[error("{mount_point} is a bind mount of a part of a cachewfs mount")]
    BindMount { mount_point: String },
    /// The mount belongs to another user. Only that user's commands find its control socket.
    #[error("the mount at {mount_point} belongs to another user (uid {uid})")]
    ForeignMount { mount_point: String, uid: u32 },
    /// The cache has only some of the bytes that the command asked for.
    #[error("the cache has {kept} of {total} of {repo}: {reason}")]
    Incomplete {
        repo: String,
        /// The bytes that the cache has, and all bytes, for people.
        kept: String,
        total: String,
        reason: String,
        is_pinned: bool,
    },
    /// A text is neither the URL nor the name of a repository.
    #[error("{url:?} is not the URL of a repository: {reason}")]
    BadUrl { url: String, reason: String },
    /// A text names a directory of this machine, and a mount has only what its daemon mirrors.
    #[error("{url:?} is a path of this machine, and no repository of the mount")]
    LocalPath { url: String },
    /// A path in a mount is not in a repository.
    #[error("{path:?} is in the mount at {mount_point}, and in no repository of it")]
    NoRepositoryAtPath { path: String, mount_point: String },
    /// The repository has neither a branch nor a tag of this name.
    #[error("{repo} has no branch and no tag {name:?}{instead}")]
    NoBranch {
        repo: String,
        name: String,
        /// A semicolon and names that it has, or nothing if it has none.
        instead: String,
    },
    /// No daemon is given to restore from.
    #[error("no daemon is given")]
    NoDaemon,
    /// Another process restores into the same directory.
    #[error("another cachewfs restore is working on {directory}")]
    RestoredTwice { directory: String },
    /// A signal interrupted a restore.
    #[error("interrupted; {staging} keeps what was fetched")]
    RestoreInterrupted { staging: String },
    /// The restored clone is complete, but git can't fetch what is newer at upstream.
    #[error("{directory} has the whole snapshot, but git can't fetch what is newer: {details}")]
    NotUpToDate { directory: String, details: String },
    /// The daemon has a commit, but publishes no ref that reaches it.
    #[error("{directory} has the whole snapshot, but no published ref reaches {commit}")]
    CommitNotReached { directory: String, commit: String },
    /// A restore would overwrite files that a person changed.
    #[error("{directory} has changes that the restore would overwrite: {paths}")]
    ChangesInTheWay { directory: String, paths: String },
    /// A restore would lose commits that a person made.
    #[error("{directory} has commits on {branch} that upstream doesn't have")]
    OwnCommits { directory: String, branch: String },
    /// A person switched to another branch than the one that a restore updates.
    #[error("{directory} is on {found}, and the snapshot is on {expected}")]
    OtherBranch {
        directory: String,
        found: String,
        expected: String,
    },
    /// The directory has a restored clone of another repository, or of the other kind.
    #[error("{directory} is a restored {found}, not a {wanted}")]
    OtherRestore {
        directory: String,
        found: String,
        wanted: String,
    },
    /// The directory is in no clone that borrows from a mount.
    #[error("{directory} is in no clone that borrows objects from a cachewfs mount")]
    NothingBorrowed { directory: String },
    /// Another process dissociates the same clone.
    #[error("another cachewfs dissociate is working on {directory}")]
    DissociatedTwice { directory: String },
    /// The disk has too little room for a copy.
    #[error("the copy needs {needed}, and the disk of {directory} has only {free}")]
    NoRoom {
        /// The bytes of the copy and those that are free, for people.
        needed: String,
        free: String,
        directory: String,
    },
    /// The directory to clone into has files already.
    #[error("{directory} exists and is not empty")]
    NotEmpty { directory: String },
    /// A text is not the URL of a daemon.
    #[error("{url:?} is not the URL of a daemon: {reason}")]
    BadDaemonUrl { url: String, reason: &'static str },
    /// A cachewfs mount that works is at the mount point.
    #[error("{mount_point} is a cachewfs mount already{details}")]
    AlreadyMounted {
        mount_point: String,
        /// The mount's daemons and process, or the reason why it doesn't tell them.
        details: String,
    },
    /// A mount option is unknown, or its value is malformed.
    #[error("mount option {option:?}: {reason}")]
    BadOption {
        /// The option as the user wrote it.
        option: String,
        reason: String,
    },
    /// A program that this process started failed.
    #[error("{program} failed{details}")]
    ProgramFailed {
        /// The program and its subcommand.
        program: String,
        /// A colon and the program's standard error, or nothing if it printed nothing.
        details: String,
    },
    /// The clone exists and has its history, but git can't write all files of the work tree.
    #[error("{directory} has the whole history, but git can't check out its files: {details}")]
    CheckoutFailed { directory: String, details: String },
    /// The background process ended before its mount was ready.
    #[error("{}", failure.message)]
    NotMounted {
        /// The failure that the background process printed.
        failure: Failure,
    },
    /// The log file can't be opened.
    #[error("can't open the log file {path}")]
    Log {
        path: String,
        source: std::io::Error,
    },
    /// The arguments of `mount` don't go together.
    #[error("{reason}")]
    WrongArguments { reason: &'static str },
    /// `verify` found wrong bytes or missing objects.
    #[error("something is wrong with what is stored here ({count} findings)")]
    Damaged { count: usize },
    /// git doesn't understand the value of `--since`.
    #[error("{date:?} is no date in the past that git understands, and no duration")]
    BadDate { date: String },
    /// `doctor` found something that doesn't work.
    #[error("something is wrong with this machine ({count} of the checks)")]
    Unwell { count: usize },
    /// A signal interrupted the command, such as SIGINT for Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Standard output can't be written.
    #[error("can't write the output")]
    Output(#[source] std::io::Error),
}
