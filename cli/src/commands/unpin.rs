//! `cachewfs unpin`: allows the eviction of a pinned repository.

use anyhow::Result;
use cachewfs_format::RepoName;
use cachewfs_fuse::control::protocol::ControlRequest;
use serde::Serialize;

use crate::chosen_repo::RepoChoice;
use crate::json_choice::JsonChoice;

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

    #[command(flatten)]
    json: JsonChoice,
}

/// The result, for programs.
#[derive(Debug, Serialize)]
struct UnpinReport {
    repo: RepoName,
    is_pinned: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let chosen = args.repo.choose()?;
    let repo = chosen.name.clone();
    chosen.ask(&ControlRequest::Unpin { repo: repo.clone() })?;
    let line = format!("Unpinned {repo}");
    let is_pinned = false;
    args.json.print(&UnpinReport { repo, is_pinned }, &line)
}
