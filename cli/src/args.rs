//! The command line: the subcommands and the main help text.

use clap::{Parser, Subcommand};

use crate::commands::{
    self, before_sleep, clone, completions, man, mount, pin, prefetch, refresh, restore, status,
    umount, unpin,
};

/// Use very large git repositories at once, without waiting for a clone.
///
/// A mount shows every repository that a cachewfs daemon mirrors as a directory. Each is complete,
/// with all of its history. A read waits only for the bytes that it needs. Meanwhile the mount
/// fetches the rest in the background, unless you mount with -o hydrate=off or hydrate=hot.
///
///   cachewfs mount http://cachew.example.com:8080 /cachewfs
///   cachewfs clone https://github.com/git/git
///   cachewfs status
///
/// If you have no daemon, `cachewfs mount --local DIR MOUNTPOINT` runs one in the same process.
///
/// Exit codes:
///   0  success
///   1  failure; for doctor and verify, something is wrong
///   2  the command line is wrong
///   3  no mount is running, or it does not answer
///   4  the repository does not exist
#[derive(Debug, Parser)]
#[command(name = "cachewfs", version, verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Show no progress.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Mount(mount::Args),
    Umount(umount::Args),
    Clone(clone::Args),
    Dissociate(commands::dissociate::Args),
    Restore(restore::Args),
    Pin(pin::Args),
    Unpin(unpin::Args),
    Pins(commands::pins::Args),
    Prefetch(prefetch::Args),
    Forget(commands::forget::Args),
    Refresh(refresh::Args),
    Status(status::Args),
    Verify(commands::verify::Args),
    Doctor(commands::doctor::Args),
    Report(commands::report::Args),
    Completions(completions::Args),
    Man(man::Args),
    BeforeSleep(before_sleep::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_help_of_each_command_begins_with_examples() {
        let mut program = Arguments::command();
        for command in program.get_subcommands_mut() {
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();

            // After the first line, which says what the command does.
            let example = help.lines().nth(2).unwrap_or_default();

            assert!(example.starts_with("  "), "{help}");
            let used = format!("cachewfs {name}");
            assert!(example.contains(&used), "{name}: {example}");
        }
    }
}
