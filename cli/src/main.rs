//! The program `cachewfs`. It is also the helper of mount(8).

#![expect(
    clippy::doc_markdown,
    rustdoc::bare_urls,
    reason = "clap prints the doc comments of arguments as the help text"
)]

mod args;
mod borrowing;
mod bundle;
mod clone_files;
mod clone_staging;
mod commands;
mod daemonise;
mod doctor;
mod error;
mod git;
mod holder;
mod interrupt;
mod local;
mod mounting;
mod mounts;
mod new_clone;
mod output;
mod progress;
mod remote;
mod report;
mod restore_staging;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Arguments, Command};
use crate::commands::{
    before_sleep, clone, completions, man, mount, mount_helper, pin, prefetch, refresh, restore,
    status, umount, unpin,
};

fn main() -> ExitCode {
    let outcome = if let Some(signal) = holder::killed_by() {
        mount::recover(signal)
    } else if mount_helper::is_helper(std::env::args_os()) {
        mount_helper::run(&mount_helper::Args::parse())
    } else {
        run(Arguments::parse().command)
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report::report(&error),
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Mount(args) => mount::run(&args),
        Command::Umount(args) => umount::run(&args),
        Command::Clone(args) => clone::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Pin(args) => pin::run(&args),
        Command::Unpin(args) => unpin::run(&args),
        Command::Prefetch(args) => prefetch::run(&args),
        Command::Refresh(args) => refresh::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Report(args) => commands::report::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::BeforeSleep(args) => before_sleep::run(&args),
    }
}
