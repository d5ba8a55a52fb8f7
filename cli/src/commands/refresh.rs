//! `cachewfs refresh`: the newest state of upstream, without waiting for the next poll.

use anyhow::Result;
use cachewfs_format::{RepoName, SnapshotId};
use cachewfs_fuse::control::protocol::{ControlAnswer, ControlRequest};
use serde::Serialize;

use crate::chosen_repo::RepoChoice;
use crate::json_choice::JsonChoice;

/// Make the daemon fetch from upstream now, and switch the mount to the newest snapshot
///
///   cachewfs refresh github.com/org/repo
///   cachewfs refresh --json github.com/org/repo | jq -r .commit
///
/// A mount follows upstream by itself. Use this command if you can't wait for the next poll.
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
struct RefreshReport {
    repo: RepoName,
    /// The snapshot that the mount shows.
    snapshot: SnapshotId,
    commit: String,
    default_branch: Option<String>,
    upstream_url: Option<String>,
    /// A sentence about files that the mount doesn't show.
    notice: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let chosen = args.repo.choose()?;
    let repo = chosen.name.clone();
    let answer = chosen.ask(&ControlRequest::Refresh { repo: repo.clone() })?;
    let ControlAnswer::Resolved {
        snapshot,
        upstream_url,
        default_branch,
        notice,
        ..
    } = answer
    else {
        anyhow::bail!("the mount's answer is not of the requested kind");
    };
    let report = RefreshReport {
        repo,
        snapshot,
        commit: snapshot.commit().to_string(),
        default_branch,
        upstream_url,
        notice,
    };
    let line = format!("{} is at {}", report.repo, report.commit);
    args.json.print(&report, &line)
}
