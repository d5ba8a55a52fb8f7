//! `cachewfs pin`

use anyhow::Result;
use cachewfs_fuse::control::protocol::{Answer, Request};

use crate::mounts::{MountChoice, block_on};
use crate::{output, remote};

/// Bring a repository into the cache as a whole, and never evict it.
///
/// Then everything works without the network, and what is published later is fetched as well.
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
    let request = Request::Pin { repo: repo.clone() };
    if let Answer::Fetched { fetched_bytes } = block_on(args.choice.ask(&request))? {
        output::line(&format!(
            "Pinned {repo}, fetched {}",
            output::bytes(fetched_bytes)
        ));
    }
    Ok(())
}
