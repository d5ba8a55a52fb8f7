//! `cachewfs refresh`

use anyhow::Result;
use cachewfs_fuse::control::protocol::{Answer, Request};

use crate::mounts::{MountChoice, block_on};
use crate::{output, remote};

/// Make the daemon ask upstream, and show what is new.
///
/// A mount follows upstream by itself; this is for who can't wait for the next poll.
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
    let answer = block_on(args.choice.ask(&Request::Refresh { repo: repo.clone() }))?;
    if let Answer::Resolved { snapshot, .. } = answer {
        output::line(&format!("{repo} is at {}", snapshot.commit()));
    }
    Ok(())
}
