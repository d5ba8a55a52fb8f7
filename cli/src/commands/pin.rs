//! `cachewfs pin`

use anyhow::Result;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest};

use crate::mounts::RepoChoice;
use crate::output;

/// Bring a repository into the cache as a whole, and never evict it.
///
/// Then everything works without the network, and what is published later is fetched as well.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    repo: RepoChoice,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let repo = args.repo.name()?;
    let request = ControlRequest::Pin { repo: repo.clone() };
    if let ControlAnswer::Fetched { fetched_bytes } = args.repo.ask(&request)? {
        output::line(&format!(
            "Pinned {repo}, fetched {}",
            output::bytes(fetched_bytes)
        ))?;
    }
    Ok(())
}
