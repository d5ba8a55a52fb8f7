//! The command line as a whole.

use clap::{Parser, Subcommand};

use crate::commands::{clone, completions, mount, pin, prefetch, refresh, status, umount, unpin};

/// Very large git repositories, usable at once.
///
/// Mount a cachewfs daemon, and every repository that it mirrors is a directory: complete, with all
/// of its history, and fetched as it is read.
///
///   cachewfs mount http://cachew.example.com:8080 /cachewfs
///   cachewfs clone https://github.com/git/git
///   cachewfs status
///
/// Without a daemon, `cachewfs mount --local DIR MOUNTPOINT` runs one in the same process.
///
/// Exit codes: 0 done; 1 failed; 2 the command line is wrong; 3 there is no mount to ask; 4 there is
/// no such repository.
#[derive(Debug, Parser)]
#[command(name = "cachewfs", version, verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Mount(mount::Args),
    Umount(umount::Args),
    Clone(clone::Args),
    Pin(pin::Args),
    Unpin(unpin::Args),
    Prefetch(prefetch::Args),
    Refresh(refresh::Args),
    Status(status::Args),
    Completions(completions::Args),
}
