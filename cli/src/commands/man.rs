//! `cachewfs man`: the manual pages, for packages.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_mangen::Man;

use super::mount_helper;
use crate::args::Arguments;

/// Write the manual pages of all commands into a directory
///
///   cachewfs man /usr/local/share/man/man1
///
/// Packages bring them.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The directory, which must exist.
    directory: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let directory = &args.directory;
    let failed = || format!("can't write the manual pages into {}", directory.display());
    clap_mangen::generate_to(Arguments::command(), directory).with_context(failed)?;
    let helper = Man::new(mount_helper::Args::command()).section("8");
    let mut page = File::create(directory.join(helper.get_filename())).with_context(failed)?;
    helper.render(&mut page).with_context(failed)
}
