//! `cachewfs unpin`

use anyhow::Result;
use cachewfs_fuse::control::protocol::ControlRequest;

use crate::mounts::RepoChoice;
use crate::output;

/// Let a pinned repository be evicted again. Nothing is removed now.
#[derive(Debug, clap::Args)]
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
