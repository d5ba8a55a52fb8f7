//! `cachewfs forget`: drops what the cache has of a repository.

use anyhow::Result;
use cachewfs_format::RepoName;
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest};
use serde::Serialize;

use crate::chosen_repo::RepoChoice;
use crate::json_choice::JsonChoice;
use crate::output;

/// Drop what the cache has of a repository
///
///   cachewfs forget github.com/org/repo             frees its disk space
///   cachewfs forget github.com/org/repo --force     also if it is pinned
///
/// The mount still shows the repository, and fetches its parts again as they are read. Clones of it
/// work as before, as long as a daemon answers. Bytes that other repositories need, such as a fork,
/// stay.
///
/// The command is refused while a program has a pack or a large file of the repository open.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// Unpin the repository first if it is pinned.
    #[arg(short, long)]
    force: bool,

    #[command(flatten)]
    json: JsonChoice,

    #[command(flatten)]
    repo: RepoChoice,
}

/// The result, for programs.
#[derive(Debug, Serialize)]
struct ForgetReport {
    repo: RepoName,
    /// The bytes of disk that are free now.
    freed_bytes: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let chosen = args.repo.choose()?;
    let repo = chosen.name.clone();
    let request = ControlRequest::Forget {
        repo: repo.clone(),
        force: args.force,
    };
    let ControlAnswer::Freed { freed_bytes } = chosen.ask(&request)? else {
        anyhow::bail!("the mount's answer is not of the requested kind");
    };
    let line = format!("Forgot {repo}: freed {}", output::bytes(freed_bytes));
    args.json.print(&ForgetReport { repo, freed_bytes }, &line)
}
