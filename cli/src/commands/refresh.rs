//! `cachewfs refresh`

use anyhow::Result;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest};

use crate::mounts::RepoChoice;
use crate::output;

/// Make the daemon ask upstream, and show what is new.
///
/// A mount follows upstream by itself; this is for who can't wait for the next poll.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    repo: RepoChoice,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let repo = args.repo.name()?;
    let answer = args
        .repo
        .ask(&ControlRequest::Refresh { repo: repo.clone() })?;
    if let ControlAnswer::Resolved { snapshot, .. } = answer {
        output::line(&format!("{repo} is at {}", snapshot.commit()))?;
    }
    Ok(())
}
