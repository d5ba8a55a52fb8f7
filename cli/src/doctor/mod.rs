//! Finds out what is wrong with this machine, and how to mend it.
//!
//! Each check is a value ([`Check`]). The text, the JSON and the exit code are made of the same
//! values. No check changes anything, and none needs a mount or a daemon.
//!
//! ```text
//! subject.rs   what is looked at: the mounts, or a daemon that a person named
//! machine.rs   FUSE, the kernel, git        updatedb.rs  programs that read whole mounts
//! mounts.rs    dead mounts, outages         daemon.rs    the steps to a daemon
//! cache.rs     room, rights, passthrough    clones.rs    alternates, partial clones
//! ```

mod cache;
mod check;
mod clones;
mod daemon;
mod machine;
mod mounts;
mod subject;
mod updatedb;

use std::path::PathBuf;

pub(crate) use check::{Check, Outcome};
pub(crate) use machine::{distribution, git_version, kernel};
pub(crate) use subject::{MountState, Subject, Target};

/// A group of checks of a subject, and of the clones in these directories.
type Group = fn(&Subject, &[PathBuf]) -> Vec<Check>;

const GROUPS: [Group; 6] = [
    |_, _| machine::check(),
    |subject, _| vec![updatedb::check(subject)],
    |subject, _| mounts::check(subject),
    |subject, _| daemon::check(subject),
    |subject, _| cache::check(subject),
    clones::check,
];

/// Makes all checks of `subject` and of the clones at `clones`, each group when the iterator comes
/// to it: a daemon may take seconds.
pub(crate) fn examine(subject: &Subject, clones: &[PathBuf]) -> impl Iterator<Item = Check> {
    GROUPS.iter().flat_map(|group| group(subject, clones))
}
