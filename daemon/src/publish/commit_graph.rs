//! The split commit-graph with changed-path filters, kept in the mirror and published with it.

use std::path::{Path, PathBuf};

use cachewfs_format::ARE_CHANGED_PATHS_PORTABLE;

use tracing::warn;

use super::PublishError;
use super::job::PublishJob;
use crate::error_chain::chain;

/// Where git keeps the chain, in the mirror and in the archives.
pub(crate) const CHAIN_DIRECTORY: &str = "objects/info/commit-graphs";

/// Which commits the chain is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GraphScope {
    /// Those that are new, in a link of their own; git merges links geometrically.
    New,
    /// All, in one link: the packs are laid out anew, and may lack what the old links name.
    All,
}

/// Adds the commits that the chain lacks, and returns the paths of its links, oldest first. There are
/// no links if git finds that the chain is wrong.
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
        // git before 2.46 ignores version 2, and shows wrong histories where a chain has both.
        .config("commitGraph.changedPathsVersion", 1)
        .args(["write", "--reachable", split, filters, "--no-progress"])
        .effect()?;
    let directory = job.mirror.join(CHAIN_DIRECTORY);
    // git writes wrong generation numbers for some dates of commits, and gives wrong answers with them.
    let verified = job
        .git("commit-graph")
        .args(["verify", "--shallow", "--no-progress"])
        .effect();
    match verified {
        Err(error) if error.exit_code().is_some() => {
            let error = chain(&error);
            warn!(
                error,
                "git writes a commit-graph that it refuses: there is none"
            );
            remove(&directory)?;
            return Ok(Vec::new());
        }
        verified => verified?,
    }
    let links = match std::fs::read_to_string(directory.join("commit-graph-chain")) {
        // git writes none for a repository without commits that may be in one (grafts).
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        links => links.map_err(PublishError::at(&directory))?,
    };
    Ok(links
        .lines()
        .map(|hash| directory.join(format!("graph-{hash}.graph")))
        .collect())
}

/// Removes the chain from the mirror.
fn remove(directory: &Path) -> Result<(), PublishError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(PublishError::at(directory)),
    }
}
