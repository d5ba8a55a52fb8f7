//! The kinds of pack.

use serde::{Deserialize, Serialize};

use super::SnapshotPart;

/// The kinds of pack. They group objects that are read together, so that a reader fetches little
/// else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackKind {
    /// The git trees and git blobs of HEAD.
    Tip,
    /// All other git trees and git blobs of the newest commits.
    Recent,
    /// The objects that were new at a later publish.
    Increment,
    /// All commits and tags.
    Commits,
    /// All other git trees.
    Trees,
    /// All other git blobs.
    History,
}

impl PackKind {
    /// Returns whether every reader needs packs of this kind, so that they are among the hot
    /// segments of an archive, before the work tree.
    pub const fn is_hot(self) -> bool {
        match self {
            Self::Tip | Self::Increment => true,
            Self::Recent | Self::Commits | Self::Trees | Self::History => false,
        }
    }

    /// Returns whether a reader needs nearly all of such a pack sooner or later.
    pub const fn is_read_whole(self) -> bool {
        match self {
            Self::Tip => true,
            Self::Recent | Self::Increment | Self::Commits | Self::Trees | Self::History => false,
        }
    }

    /// Returns whether a mount fetches a new pack of this kind before it shows the refs of a newer
    /// snapshot. Other packs are fetched when they are read: a repack makes large ones.
    pub const fn is_fetched_before_refs(self) -> bool {
        match self {
            Self::Increment => true,
            Self::Tip | Self::Recent | Self::Commits | Self::Trees | Self::History => false,
        }
    }

    /// Returns the smallest part of a snapshot that has packs of this kind.
    pub const fn part(self) -> SnapshotPart {
        match self {
            Self::Tip | Self::Increment | Self::Recent => SnapshotPart::Hot,
            Self::Commits => SnapshotPart::Commits,
            Self::Trees => SnapshotPart::Trees,
            Self::History => SnapshotPart::All,
        }
    }
}
