//! `cachewfs unpin`: allows the eviction of a pinned repository.

use anyhow::Result;
use cachewfs_fuse::control::protocol::ControlRequest;

use crate::mounts::RepoChoice;
use crate::output;

/// Let the cache evict a pinned repository again
///
///   cachewfs unpin github.com/org/repo
///
/// The command itself evicts nothing.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(flatten)]
    repo: RepoChoice,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let repo = args.repo.name()?;
    args.repo
        .ask(&ControlRequest::Unpin { repo: repo.clone() })?;
    output::line(&format!("Unpinned {repo}"))
}
