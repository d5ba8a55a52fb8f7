//! [`BuildInput`]: everything that a snapshot is built from.

use cachewfs_format::{Manifest, RepoName, ReusableRun};

use super::feed::BuildFeed;
use super::refs::Refs;
use crate::mirror::Upstream;
use crate::store::Store;

/// The input of a build: the state of the mirror, and the snapshot to build on.
#[derive(Debug)]
pub(super) struct BuildInput<'a> {
    pub(super) repo: &'a RepoName,
    pub(super) upstream: &'a Upstream,
    pub(super) refs: &'a Refs,
    /// The snapshot whose packs and runs are used again, if it can be used.
    pub(super) previous: Option<&'a Manifest>,
    pub(super) store: &'a Store,
    /// The feed for clients that download the snapshot while it is built, if there can be any.
    pub(super) feed: Option<&'a BuildFeed>,
}

impl BuildInput<'_> {
    /// Returns the runs of the previous snapshot. A snapshot without a work tree keeps them, so
    /// that the next one with a work tree can use their segments again.
    pub(super) fn previous_runs(&self) -> Vec<ReusableRun> {
        let runs = self.previous.map(|previous| previous.runs.clone());
        runs.unwrap_or_default()
    }
}
