//! The deletions object of a repository: its deletion notices, and the ids of its deleted
//! snapshots.

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

/// The object by which publishers and collectors of a repository coordinate. It is stored as JSON,
/// and replaced by compare-and-swap.
///
/// A segment or a snapshot with a deletion notice may be deleted at any moment. So a publisher
/// writes no manifest that names such a segment, and makes no such snapshot current. A collector
/// writes its notices, waits, and reads manifests and pointer again before it deletes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletions {
    /// The version of the JSON format: [`Deletions::VERSION`].
    pub version: u32,
    /// A number that is different in each state of the object. So no two states have equal bytes,
    /// and compare-and-swap can't confuse them.
    pub nonce: u64,
    /// The snapshots with a deletion notice: their manifests are about to be deleted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub snapshots: BTreeSet<SnapshotId>,
    /// The segments with a deletion notice.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub segments: BTreeSet<SegmentId>,
    /// The ids of deleted snapshots, oldest first. Each is stored as the first 8 bytes of its
    /// digest.
    ///
    /// No other snapshot may get one of these ids: an immutable URL would then serve other bytes
    /// than before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    used: Vec<u64>,
}

impl Deletions {
    /// The version that is written, and the only one that is read.
    pub const VERSION: u32 = 1;

    /// Returns the state of a repository from which nothing was ever deleted.
    pub fn none() -> Self {
        Self {
            version: Self::VERSION,
            nonce: 0,
            snapshots: BTreeSet::new(),
            segments: BTreeSet::new(),
            used: Vec::new(),
        }
    }

    /// Parses JSON from [`Deletions::to_json`]. Other versions are refused.
    pub fn parse(json: &[u8]) -> Result<Self> {
        FORMAT.parse(json)
    }

    /// Returns the JSON that is stored.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        FORMAT.write(self, self.version)
    }

    /// Returns whether a segment or a snapshot has a deletion notice.
    pub fn has_notices(&self) -> bool {
        !self.snapshots.is_empty() || !self.segments.is_empty()
    }

    /// Returns the next state, without deletion notices. The caller chooses a new `nonce`.
    pub fn cleared(&self, nonce: u64) -> Self {
        let used = self.used.clone();
        Self {
            nonce,
            used,
            ..Self::none()
        }
    }

    /// Records that no other snapshot may get this id. If there are too many, the oldest ids are
    /// dropped.
    pub fn mark_used(&mut self, id: SnapshotId) {
        let mark = mark(id);
        if !self.used.contains(&mark) {
            self.used.push(mark);
        }
        let too_many = self.used.len().saturating_sub(MAX_USED_IDS);
        self.used.drain(..too_many);
    }

    /// Returns whether this is the id of a deleted snapshot.
    pub fn is_used(&self, id: SnapshotId) -> bool {
        self.used.contains(&mark(id))
    }
}

/// Returns the first 8 bytes of the digest of an id.
fn mark(id: SnapshotId) -> u64 {
    // A collision does no harm: an id that nobody has used counts as used, and the publisher takes
    // another one.
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
