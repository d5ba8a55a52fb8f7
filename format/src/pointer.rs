//! The pointer: the one small mutable object of a repository.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ArchiveKind, Digest, SnapshotId};

/// Which snapshot of a repository is current; stored as JSON, replaced by compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// The version of this form: 1.
    pub version: u32,
    /// The current snapshot.
    pub snapshot: SnapshotId,
    /// The digest of its manifest's bytes.
    pub manifest: Digest,
    /// Its archives.
    pub archives: BTreeMap<ArchiveKind, ArchiveSummary>,
    /// When it became current, in seconds since the epoch.
    pub published_at: u64,
}

/// What a pointer says of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveSummary {
    /// The digest of its TOC.
    pub toc: Digest,
    /// Its length in bytes.
    pub size: u64,
}
