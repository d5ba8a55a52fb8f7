//! `cachewfs prefetch`: fetches a part of a repository into the cache.

use anyhow::Result;
use cachewfs_fuse::control::protocol::{ControlRequest, SnapshotPart};

use crate::mounts::RepoChoice;
use crate::output;

/// Fetch a part of a repository into the cache
///
///   cachewfs prefetch github.com/org/repo               what a checkout needs
///   cachewfs prefetch github.com/org/repo --commits     what git log needs, too
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(flatten)]
    part: PartChoice,

    #[command(flatten)]
    repo: RepoChoice,
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

pub(crate) fn run(args: &Args) -> Result<()> {
    let repo = args.repo.name()?;
    let request = ControlRequest::Prefetch {
        repo: repo.clone(),
        part: args.part.part(),
    };
    let fetched = output::fetched(args.repo.fetch(&request)?);
    output::line(&format!("Prefetched {repo}: {fetched}"))
}
