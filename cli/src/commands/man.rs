//! `cachewfs man`: the manual pages, for packages.

use std::fs::File;
use std::io::Write as _;
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
    let mut program = Arguments::command();
    // Gives the subcommands their full names, such as cachewfs-mount.
    program.build();
    let subcommands = program.get_subcommands().cloned();
    let pages = subcommands
        .filter(|subcommand| subcommand.get_name() != "help")
        .map(Man::new)
        .chain([
            Man::new(program.clone()),
            Man::new(mount_helper::Args::command()).section("8"),
        ]);
    for page in pages {
        write(&page, directory.join(page.get_filename())).with_context(|| {
            format!("can't write the manual pages into {}", directory.display())
        })?;
    }
    Ok(())
}

fn write(page: &Man, path: PathBuf) -> std::io::Result<()> {
    let mut text = Vec::new();
    page.render(&mut text)?;
    File::create(path)?.write_all(unfilled_examples(&String::from_utf8_lossy(&text)).as_bytes())
}

/// Has indented lines printed as they are. Otherwise the words of an example would be spread over
/// the line.
fn unfilled_examples(page: &str) -> String {
    let mut text = String::new();
    let mut is_unfilled = false;
    for line in page.lines() {
        if line.starts_with("  ") != is_unfilled {
            is_unfilled = !is_unfilled;
            text.push_str(if is_unfilled { ".nf\n" } else { ".fi\n" });
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_keep_their_lines() {
        let page = unfilled_examples("Mount\n  cachewfs mount A\n  cachewfs mount B\nMore\n");

        let examples = ".nf\n  cachewfs mount A\n  cachewfs mount B\n.fi\n";
        assert_eq!(page, format!("Mount\n{examples}More\n"));
    }
}
