//! Prints every error and log message of the programs, with their codes, as the page
//! `docs/operations/messages.md`. The test command compares it with that file.

mod page;
mod sources;

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;

use crate::sources::Sources;

/// The crates with messages. `format` comes first: the others use its constants.
const CRATES: [&str; 8] = [
    "format",
    "base",
    "store",
    "s3",
    "daemon",
    "cachewfsd",
    "fuse",
    "cli",
];

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the crate has no parent directory")?;
    let mut sources = Sources::default();
    for name in CRATES {
        sources.read_directory(root, &format!("{name}/src"))?;
    }
    let page = page::render(&sources);
    Ok(std::io::stdout().write_all(page.as_bytes())?)
}
