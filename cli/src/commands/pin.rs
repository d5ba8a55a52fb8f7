//! `cachewfs pin`: fetches a whole repository into the cache, and keeps it there.

use anyhow::Result;
use cachewfs_format::RepoName;
use cachewfs_fuse::control::protocol::ControlRequest;
use serde::Serialize;

use crate::chosen_repo::RepoChoice;
use crate::json_choice::JsonChoice;
use crate::output;

/// Fetch a whole repository into the cache, and never evict it
///
///   cachewfs pin https://github.com/org/repo       before a flight
///   cachewfs pin github.com/org/repo --mount /cachewfs
///
/// All of its files then work without the network. Later snapshots of it are fetched too.
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
struct PinReport {
    repo: RepoName,
    is_pinned: bool,
    fetched_bytes: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let chosen = args.repo.choose()?;
    let repo = chosen.name.clone();
    let request = ControlRequest::Pin { repo: repo.clone() };
    let fetched_bytes = chosen.fetch(&request)?;
    let line = format!("Pinned {repo}: {}", output::fetched(fetched_bytes));
    let report = PinReport {
        repo,
        is_pinned: true,
        fetched_bytes,
    };
    args.json.print(&report, &line)
}
