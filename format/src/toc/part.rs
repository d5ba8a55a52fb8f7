//! The parts of a snapshot that a mount fetches in the background.

use serde::{Deserialize, Serialize};

/// A part of a snapshot to fetch. Each contains the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotPart {
    /// Refs, commit-graph, pack indexes and the tip pack: everything that a checkout needs.
    Hot,
    /// [`SnapshotPart::Hot`] and all commits.
    Commits,
    /// [`SnapshotPart::Commits`] and all git trees.
    Trees,
    /// Everything.
    All,
}
