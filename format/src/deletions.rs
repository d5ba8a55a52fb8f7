//! What is being deleted of a repository, and which snapshots are gone.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::json::JsonFormat;
use crate::limits::{MAX_DELETIONS_LEN, MAX_USED_IDS};
use crate::{Digest, Result, SegmentId, SnapshotId};

const FORMAT: JsonFormat = JsonFormat {
    section: "deletions",
    version: Deletions::VERSION,
    max_len: MAX_DELETIONS_LEN,
};

/// What those who publish and those who delete tell each other; stored as JSON, replaced by
/// compare-and-swap.
///
/// What is announced here may be gone at any moment: no manifest that names an announced segment is written, and
/// no announced snapshot is made current. Who announces waits before it deletes, and looks again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletions {
    /// The version of this form: [`Deletions::VERSION`].
    pub version: u32,
    /// Another in each state, so that no two have the same bytes.
    pub nonce: u64,
    /// Snapshots whose manifests are about to be deleted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub snapshots: BTreeSet<SnapshotId>,
    /// Segments that are about to be deleted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub segments: BTreeSet<SegmentId>,
    /// The first 8 bytes of the digests of ids whose snapshots were deleted, oldest first: another
    /// snapshot must not get one of these, as its URL would answer other bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    used: Vec<u64>,
}

impl Deletions {
    /// The version that is written, and the only one that is read.
    pub const VERSION: u32 = 1;

    /// Nothing is being deleted, and nothing ever was.
    pub fn none() -> Self {
        Self {
            version: Self::VERSION,
            nonce: 0,
            snapshots: BTreeSet::new(),
            segments: BTreeSet::new(),
            used: Vec::new(),
        }
    }

    /// Parses what [`Deletions::to_json`] wrote; refuses other versions.
    pub fn parse(json: &[u8]) -> Result<Self> {
        FORMAT.parse(json)
    }

    /// As it is stored.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        FORMAT.write(self, self.version)
    }

    /// Whether something is announced.
    pub fn has_notices(&self) -> bool {
        !self.snapshots.is_empty() || !self.segments.is_empty()
    }

    /// What comes after this, when nothing is announced any more; `nonce` is new.
    pub fn cleared(&self, nonce: u64) -> Self {
        let used = self.used.clone();
        Self {
            nonce,
            used,
            ..Self::none()
        }
    }

    /// Notes that no other snapshot may have this id.
    pub fn mark_used(&mut self, id: SnapshotId) {
        let mark = mark(id);
        if !self.used.contains(&mark) {
            self.used.push(mark);
        }
        let too_many = self.used.len().saturating_sub(MAX_USED_IDS);
        self.used.drain(..too_many);
    }

    /// Whether a snapshot had this id that was deleted.
    pub fn is_used(&self, id: SnapshotId) -> bool {
        self.used.contains(&mark(id))
    }
}

fn mark(id: SnapshotId) -> u64 {
    let digest = Digest::of(id.to_string().as_bytes());
    let first = digest.as_bytes().first_chunk();
    first.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectId;

    fn id(number: u32) -> SnapshotId {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        SnapshotId::first(ObjectId::from_bytes(&bytes).unwrap())
    }

    #[test]
    fn deletions_round_trip() {
        let mut deletions = Deletions::none();
        deletions.snapshots.insert(id(1));
        deletions.segments.insert(SegmentId(Digest::of(b"x")));
        deletions.mark_used(id(2));

        let read = Deletions::parse(&deletions.to_json().unwrap()).unwrap();

        assert_eq!(read, deletions);
        assert!(read.has_notices() && read.is_used(id(2)) && !read.is_used(id(1)));
        let cleared = read.cleared(7);
        assert!(!cleared.has_notices() && cleared.is_used(id(2)));
    }

    #[test]
    fn the_oldest_of_too_many_used_ids_are_dropped() {
        let mut deletions = Deletions::none();
        deletions.used = (0..MAX_USED_IDS as u64).collect();

        deletions.mark_used(id(1));
        deletions.mark_used(id(1));

        assert_eq!(deletions.used.len(), MAX_USED_IDS);
        assert!(!deletions.used.contains(&0) && deletions.used.contains(&1));
        assert!(deletions.is_used(id(1)));
        assert!(deletions.to_json().is_ok());
    }
}
