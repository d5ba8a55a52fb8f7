//! `cachewfs prefetch`: fetches a part of a repository into the cache.

use anyhow::Result;
use cachewfs_format::RepoName;
use cachewfs_fuse::control::protocol::{ControlRequest, SnapshotPart};
use serde::Serialize;

use crate::chosen_repo::RepoChoice;
use crate::output;
use crate::speech::JsonChoice;

/// Fetch a part of a repository into the cache
///
///   cachewfs prefetch github.com/org/repo               what a checkout needs
///   cachewfs prefetch github.com/org/repo --commits     what git log needs, too
///   cachewfs prefetch github.com/org/repo --all         the whole repository
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(flatten)]
    part: PartChoice,

    #[command(flatten)]
    repo: RepoChoice,

    #[command(flatten)]
    json: JsonChoice,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct PartChoice {
    /// Fetch the files and objects that a checkout needs. This is the default.
    #[arg(long)]
    hot: bool,

    /// Also fetch all commits, for `git log`.
    #[arg(long)]
    commits: bool,

    /// Also fetch all trees, for `git log -- PATH`.
    #[arg(long)]
    trees: bool,

    /// Fetch the whole repository.
    #[arg(long)]
    all: bool,
}

impl PartChoice {
    fn part(&self) -> SnapshotPart {
        match (self.commits, self.trees, self.all) {
            (true, _, _) => SnapshotPart::Commits,
            (_, true, _) => SnapshotPart::Trees,
            (_, _, true) => SnapshotPart::All,
            _ => SnapshotPart::Hot,
        }
    }
}

/// The result, for programs.
#[derive(Debug, Serialize)]
struct PrefetchReport {
    repo: RepoName,
    part: SnapshotPart,
    fetched_bytes: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let chosen = args.repo.choose()?;
    let repo = chosen.name.clone();
    let part = args.part.part();
    let request = ControlRequest::Prefetch {
        repo: repo.clone(),
        part,
    };
    let fetched_bytes = chosen.fetch(&request)?;
    let line = format!("Prefetched {repo}: {}", output::fetched(fetched_bytes));
    let report = PrefetchReport {
        repo,
        part,
        fetched_bytes,
    };
    args.json.print(&report, &line)
}
