//! The pointer: the one small mutable object of a repository.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::Form;
use crate::limits::MAX_POINTER_LEN;
use crate::{ArchiveKind, Digest, Result, SnapshotId};

const FORM: Form = Form {
    section: "pointer",
    version: Pointer::VERSION,
    max_len: MAX_POINTER_LEN,
};

/// Which snapshot of a repository is current; stored as JSON, replaced by compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// The version of this form: [`Pointer::VERSION`].
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

impl Pointer {
    /// The version that is written, and the only one that is read.
    pub const VERSION: u32 = 1;

    /// Parses what [`Pointer::to_json`] wrote; refuses other versions.
    pub fn parse(json: &[u8]) -> Result<Self> {
        FORM.parse(json)
    }

    /// The pointer as it is stored.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        FORM.write(self, self.version)
    }
}

/// What a pointer says of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveSummary {
    /// The digest of its TOC.
    pub toc: Digest,
    /// Its length in bytes.
    pub size: u64,
}
