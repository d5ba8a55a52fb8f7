//! `cachewfs completions`: the completion script of a shell.

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Arguments;
use crate::output;

/// Print a script for a shell that completes the arguments of this command
///
///   cachewfs completions bash > /etc/bash_completion.d/cachewfs
///   cachewfs completions zsh > /usr/local/share/zsh/site-functions/_cachewfs
///   cachewfs completions fish > /etc/fish/completions/cachewfs.fish
///
/// zsh finds the script in any directory of $fpath.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut Arguments::command(),
        "cachewfs",
        &mut script,
    );
    output::write(&script)
}
