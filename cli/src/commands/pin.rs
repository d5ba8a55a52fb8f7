//! `cachewfs pin`: fetches a whole repository into the cache, and keeps it there.

use anyhow::Result;
use cachewfs_fuse::control::protocol::ControlRequest;

use crate::mounts::RepoChoice;
use crate::output;

/// Fetch a whole repository into the cache, and never evict it
///
///   cachewfs pin https://github.com/org/repo       before a flight
///   cachewfs pin github.com/org/repo --mount /cachewfs
///
/// All of its files then work without the network. Later snapshots of it are fetched too.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(flatten)]
    repo: RepoChoice,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let repo = args.repo.name()?;
    let request = ControlRequest::Pin { repo: repo.clone() };
    let fetched = output::fetched(args.repo.fetch(&request)?);
    output::line(&format!("Pinned {repo}: {fetched}"))
}
