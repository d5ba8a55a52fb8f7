//! The split commit-graph with changed-path filters. It is kept in the mirror and published with
//! it.

use std::path::{Path, PathBuf};

use cachewfs_format::ARE_CHANGED_PATHS_PORTABLE;

use tracing::warn;

use super::PublishError;
use super::job::PublishJob;
use crate::base::chain;

/// The directory of the chain, in the mirror and in the archives.
pub(crate) const CHAIN_DIRECTORY: &str = "objects/info/commit-graphs";

/// The commits that the chain is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GraphScope {
    /// The new commits, in a link of their own. Git merges links geometrically.
    New,
    /// All commits, in one link. The packs are made from scratch and may lack commits that the old
    /// links name.
    All,
}

/// Adds the commits that the chain lacks. Returns the paths of the chain's links, oldest first.
///
/// There are no links if `git commit-graph verify` finds that the chain is wrong: git works without
/// a commit-graph, only more slowly.
pub(super) fn write_commit_graph(
    job: &PublishJob<'_>,
    scope: GraphScope,
) -> Result<Vec<PathBuf>, PublishError> {
    let split = match scope {
        GraphScope::New => "--split",
        GraphScope::All => "--split=replace",
    };
    let filters = if ARE_CHANGED_PATHS_PORTABLE {
        "--changed-paths"
    } else {
        "--no-changed-paths"
    };
    job.git("commit-graph")
        // Git before 2.46 ignores version 2 of the filters, and shows wrong histories if a chain
        // has both versions.
        .config("commitGraph.changedPathsVersion", 1)
        .args(["write", "--reachable", split, filters, "--no-progress"])
        .effect()?;
    let directory = job.mirror.join(CHAIN_DIRECTORY);
    // For some commit dates, git writes wrong generation numbers, and then gives wrong answers.
    // `--shallow` checks only the newest link: each older link was checked when it was the newest.
    let verified = job
        .git("commit-graph")
        .args(["verify", "--shallow", "--no-progress"])
        .effect();
    match verified {
        Err(error) if error.exit_code().is_some() => {
            let error = chain(&error);
            warn!(
                error,
                "git refuses the commit-graph that it has written; publishing without one"
            );
            remove(&directory)?;
            return Ok(Vec::new());
        }
        verified => verified?,
    }
    let links = match std::fs::read_to_string(directory.join("commit-graph-chain")) {
        // Git writes no chain if no commit may be in one, for example in a repository with grafts.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        links => links.map_err(PublishError::at(&directory))?,
    };
    Ok(links
        .lines()
        .map(|hash| directory.join(format!("graph-{hash}.graph")))
        .collect())
}

/// Removes the chain from the mirror, if there is one.
fn remove(directory: &Path) -> Result<(), PublishError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(PublishError::at(directory)),
    }
}
