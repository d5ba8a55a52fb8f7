//! The program `cachewfs`. It is also the helper of mount(8).

#![expect(
    clippy::doc_markdown,
    rustdoc::bare_urls,
    reason = "clap prints the doc comments of arguments as the help text"
)]

mod args;
mod borrowing;
mod bundle;
mod chosen_repo;
mod clone_files;
mod clone_staging;
mod commands;
mod daemonise;
mod dissociation;
mod doctor;
mod error;
mod exit_code;
mod failure;
mod git;
mod holder;
mod interrupt;
mod json_choice;
mod local;
mod mount_report;
mod mount_table;
mod mounting;
mod mounts;
mod new_clone;
mod output;
mod progress;
mod remote;
mod report;
mod restore_job;
mod restore_staging;
mod restored;
mod similar_names;
mod speech;
mod submodules;
#[cfg(test)]
mod testing;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser as _};

use crate::args::{Arguments, Command};
use crate::commands::{
    before_sleep, clone, completions, man, mount, mount_helper, pin, prefetch, refresh, restore,
    status, umount, unpin,
};
use crate::speech::Speech;

fn main() -> ExitCode {
    if daemonise::is_background() {
        let is_json = true;
        Speech {
            is_json,
            ..Speech::default()
        }
        .choose();
    }
    let outcome = if let Some(signal) = holder::killed_by() {
        mount::recover(signal)
    } else if mount_helper::is_helper(std::env::args_os()) {
        mount_helper::run(&mount_helper::Args::parse())
    } else {
        match parse() {
            Ok(arguments) => run(arguments.command),
            Err(error) => return report::report_arguments(&error),
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report::report(&error),
    }
}

/// Parses the arguments, and chooses how this process speaks.
fn parse() -> Result<Arguments, clap::Error> {
    let parsed = Arguments::command().try_get_matches().and_then(|matches| {
        let command = matches.subcommand().map(|(_, command)| command);
        // Not all commands have the option.
        let json = command.and_then(|command| command.try_get_one("json").ok().flatten());
        let is_json = json.copied().unwrap_or(false);
        let arguments = Arguments::from_arg_matches(&matches)?;
        let is_quiet = arguments.quiet;
        Speech { is_json, is_quiet }.choose();
        Ok(arguments)
    });
    parsed.inspect_err(|_| {
        let is_json = std::env::args_os().any(|argument| argument == "--json");
        Speech {
            is_json,
            ..Speech::default()
        }
        .choose();
    })
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Mount(args) => mount::run(&args),
        Command::Umount(args) => umount::run(&args),
        Command::Clone(args) => clone::run(&args),
        Command::Dissociate(args) => commands::dissociate::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Pin(args) => pin::run(&args),
        Command::Unpin(args) => unpin::run(&args),
        Command::Pins(args) => commands::pins::run(&args),
        Command::Prefetch(args) => prefetch::run(&args),
        Command::Forget(args) => commands::forget::run(&args),
        Command::Refresh(args) => refresh::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Verify(args) => commands::verify::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Report(args) => commands::report::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::BeforeSleep(args) => before_sleep::run(&args),
    }
}
