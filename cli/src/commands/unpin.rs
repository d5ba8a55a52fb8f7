//! `cachewfs unpin`

use anyhow::Result;
use cachewfs_fuse::control::protocol::Request;

use crate::mounts::{MountChoice, block_on};
use crate::{output, remote};

/// Let a pinned repository be evicted again. Nothing is removed now.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The repository.
    #[arg(value_name = "URL")]
    url: String,

    #[command(flatten)]
    choice: MountChoice,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let repo = remote::repo_name(&args.url)?;
    block_on(args.choice.ask(&Request::Unpin { repo: repo.clone() }))?;
    output::line(&format!("Unpinned {repo}"));
    Ok(())
}
