//! `cachewfs refresh`: the newest state of upstream, without waiting for the next poll.

use anyhow::Result;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest};

use crate::mounts::RepoChoice;
use crate::output;

/// Make the daemon fetch from upstream now, and switch the mount to the newest snapshot
///
///   cachewfs refresh github.com/org/repo
///
/// A mount follows upstream by itself. Use this command if you can't wait for the next poll.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
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
