//! The manifest of a snapshot: which segments make up each of its archives.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ArchiveKind, Digest, ObjectId, RepoName, SegmentId, SnapshotId};

/// What is stored once for each snapshot, as JSON.
///
/// Serving a range of an archive is slicing [`ArchiveLayout`], then reading slices of segments.
/// The rest is what the next publish builds on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this form: 1.
    pub version: u32,
    /// The repository.
    pub repo: RepoName,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The digest of its refs.
    pub refs_digest: Digest,
    /// When it was made, in seconds since the epoch.
    pub created_at: u64,
    /// Its archives.
    pub archives: BTreeMap<ArchiveKind, ArchiveLayout>,
    /// Its packs, in the order in which git should search them.
    pub packs: Vec<PublishedPack>,
    /// The links of its commit-graph chain, oldest first, as in `commit-graph-chain`.
    pub commit_graphs: Vec<PublishedFile>,
    /// The tips of its refs: the next increment holds what they don't reach.
    pub tips: Vec<ObjectId>,
    /// The runs of its work tree, to be used again where nothing changed.
    pub runs: Vec<RunReuse>,
}

/// The bytes of an archive: its segments in order, then its tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveLayout {
    /// The digest of its TOC: its name, and its strong `ETag`.
    pub toc: Digest,
    /// Its whole length in bytes.
    pub size: u64,
    /// Its segments, in order.
    pub segments: Vec<SegmentRef>,
    /// TOC and seek table, stored like a segment under the digest of these bytes.
    pub tail: SegmentRef,
}

/// A segment and its length, chunks and table, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "(SegmentId, u64)", into = "(SegmentId, u64)")]
pub struct SegmentRef {
    /// Its id.
    pub id: SegmentId,
    /// Its stored length in bytes.
    pub len: u64,
}

impl From<(SegmentId, u64)> for SegmentRef {
    fn from((id, len): (SegmentId, u64)) -> Self {
        Self { id, len }
    }
}

impl From<SegmentRef> for (SegmentId, u64) {
    fn from(segment: SegmentRef) -> Self {
        (segment.id, segment.len)
    }
}

/// The kinds of pack of `DESIGN.md` section 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackKind {
    /// HEAD's git trees and git blobs.
    Tip,
    /// All other git trees and git blobs of the newest commits.
    Recent,
    /// What was new at a later publish.
    Increment,
    /// All commits and tags.
    Commits,
    /// All other git trees.
    Trees,
    /// All other git blobs.
    History,
}

/// One file that is a segment of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedFile {
    /// File name, without directories.
    pub name: String,
    /// Length of the file in bytes.
    pub size: u64,
    /// Its segment.
    pub segment: SegmentRef,
    /// Length of the frame of the segment's table.
    pub table_len: u32,
    /// Length of the segment's content: the file and its padding.
    pub content_len: u64,
    /// Lengths (stored, content) of the segment's chunks as runs `(stored, content, count)`, for
    /// the seek table.
    pub frames: Vec<(u32, u32, u32)>,
}

/// A pack with its indexes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPack {
    /// Which part of the layout it is.
    pub kind: PackKind,
    /// The `.pack` file.
    pub pack: PublishedFile,
    /// The `.idx` file.
    pub index: PublishedFile,
    /// The `.rev` file.
    pub reverse_index: PublishedFile,
}

/// A run of the work tree that a later publish may use again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReuse {
    /// The digest of the run's (path, mode, git blob id) list and of all attributes in force.
    pub key: Digest,
    /// The number of its files.
    pub files: u32,
    /// The tar members.
    pub work_tree: PublishedFile,
    /// The data of the large file that ends the run, if it has one.
    pub large_file: Option<PublishedFile>,
    /// The index entries.
    pub index_part: PublishedFile,
}
