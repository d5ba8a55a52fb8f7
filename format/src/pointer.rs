//! The pointer of a repository, which names its current snapshot.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::JsonFormat;
use crate::limits::{MAX_POINTER_LEN, MAX_REPLACED};
use crate::{ArchiveKind, Digest, Result, SnapshotId};

const FORMAT: JsonFormat = JsonFormat {
    section: "pointer",
    version: Pointer::VERSION,
    max_len: MAX_POINTER_LEN,
};

/// The small mutable object that names the current snapshot of a repository. It is stored as JSON,
/// and replaced by compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// The version of the JSON format: [`Pointer::VERSION`].
    pub version: u32,
    /// The current snapshot.
    pub snapshot: SnapshotId,
    /// The digest of its manifest's bytes.
    pub manifest: Digest,
    /// Its archives.
    pub archives: BTreeMap<ArchiveKind, ArchiveSummary>,
    /// When it became current, in seconds since the epoch.
    pub published_at: u64,
    /// The snapshots that were current before, newest first, at most [`MAX_REPLACED`]. A pointer of
    /// an earlier writer has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<ReplacedSnapshot>,
    /// A sentence about files of HEAD's tree that the work tree doesn't have, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// The fencing token: the token of the newest lease under which this pointer or an earlier one
    /// was published. 0 if no lease was held.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fence: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(fence: &u64) -> bool {
    *fence == 0
}

impl Pointer {
    /// The version that is written, and the only one that is read.
    pub const VERSION: u32 = 1;

    /// Parses JSON from [`Pointer::to_json`]. Other versions are refused.
    pub fn parse(json: &[u8]) -> Result<Self> {
        FORMAT.parse(json)
    }

    /// Returns the list `replaced` of the next pointer, which makes `next` current at the time
    /// `at`, in seconds since the epoch.
    pub fn replaced_by(&self, next: SnapshotId, at: u64) -> Vec<ReplacedSnapshot> {
        let snapshot = self.snapshot;
        let this = ReplacedSnapshot { snapshot, at };
        let all = [this].into_iter().chain(self.replaced.iter().copied());
        // `next` may have been current before. A snapshot is either current or replaced, never
        // both.
        let others = all.filter(|replaced| replaced.snapshot != next);
        others.take(MAX_REPLACED).collect()
    }

    /// Returns the JSON that is stored.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        FORMAT.write(self, self.version)
    }
}

/// A snapshot that was current, and the time at which it was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(SnapshotId, u64)", into = "(SnapshotId, u64)")]
pub struct ReplacedSnapshot {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// When another snapshot became current, in seconds since the epoch.
    pub at: u64,
}

impl From<(SnapshotId, u64)> for ReplacedSnapshot {
    fn from((snapshot, at): (SnapshotId, u64)) -> Self {
        Self { snapshot, at }
    }
}

impl From<ReplacedSnapshot> for (SnapshotId, u64) {
    fn from(replaced: ReplacedSnapshot) -> Self {
        (replaced.snapshot, replaced.at)
    }
}

/// The digest and the length of an archive, as a pointer has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveSummary {
    /// The digest of its TOC.
    pub toc: Digest,
    /// Its length in bytes.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectId;

    fn id(byte: u8) -> SnapshotId {
        let commit = ObjectId::from_bytes(&[byte; 32]).unwrap();
        SnapshotId::later(commit, &Digest::of(&[byte]))
    }

    fn pointer(byte: u8, replaced: Vec<ReplacedSnapshot>) -> Pointer {
        Pointer {
            version: Pointer::VERSION,
            snapshot: id(byte),
            manifest: Digest::of(&[byte]),
            archives: BTreeMap::new(),
            published_at: 7,
            replaced,
            notice: None,
            fence: 0,
        }
    }

    #[test]
    fn lists_replaced_snapshots_newest_first_and_each_once() {
        let first = pointer(1, Vec::new());
        let second = pointer(2, first.replaced_by(id(2), 10));
        let first_again = pointer(1, second.replaced_by(id(1), 20));

        assert_eq!(second.replaced, [ReplacedSnapshot::from((id(1), 10))]);
        assert_eq!(first_again.replaced, [ReplacedSnapshot::from((id(2), 20))]);
    }

    #[test]
    fn a_pointer_with_the_most_replaced_snapshots_can_be_stored() {
        let replaced = vec![ReplacedSnapshot::from((id(1), u64::MAX)); MAX_REPLACED];
        let mut pointer = pointer(2, replaced);
        pointer.replaced = pointer.replaced_by(id(3), u64::MAX);
        pointer.fence = u64::MAX;

        let json = pointer.to_json().unwrap();

        assert_eq!(Pointer::parse(&json).unwrap(), pointer);
        assert_eq!(pointer.replaced.len(), MAX_REPLACED);
    }

    #[test]
    fn a_pointer_of_an_earlier_writer_has_no_replaced_snapshots() {
        let json = pointer(1, Vec::new()).to_json().unwrap();

        let text = String::from_utf8_lossy(&json);
        assert!(!text.contains("replaced") && !text.contains("fence"));
        let read = Pointer::parse(&json).unwrap();
        assert_eq!((read.replaced, read.fence), (Vec::new(), 0));
    }

    #[test]
    fn the_fence_is_kept() {
        let mut pointer = pointer(1, Vec::new());
        pointer.fence = u64::MAX;

        let json = pointer.to_json().unwrap();

        assert_eq!(Pointer::parse(&json).unwrap(), pointer);
    }
}
