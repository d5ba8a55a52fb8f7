//! What every tier, and every wrapper of one, must do.
//!
//! ```text
//! objects, segments, races    what is claimed of all
//! failures                    what is claimed of those that fail now and then: a call fails or did what it says
//! patient                     who calls: tries again what failed
//! runs                        each tier, in each wrapper
//! ```
//!
//! Each claim has repositories of its own, so they may run in one tier, one after the other.

mod failures;
mod objects;
mod patient;
mod races;
mod runs;
mod segments;

use std::path::Path;

use cachewfs_format::{Digest, ObjectId, RepoName, SegmentId, SnapshotId};
use cachewfs_tests::wait_until;

use super::key::{Key, Shelf};
use super::tier::{Tier, Version, Whole};
use patient::Patient;

/// Checks all claims, trying again what fails; new segments are written to `tmp` first. Tells how many calls
/// failed. For a thread that may block, in a runtime.
pub(super) fn keeps_the_contract(tier: &dyn Tier, tmp: &Path) -> usize {
    let patient = Patient::new(tier);
    objects::check(&patient, tmp);
    segments::check(&patient, tmp);
    races::check(&patient);
    failures::check(tier, tmp);
    patient.failures()
}

fn repo(name: &str) -> Shelf {
    Shelf::of_snapshots(&RepoName::parse(&format!("example.com/{name}")).unwrap())
}

fn snapshot(byte: u8) -> SnapshotId {
    SnapshotId::first(ObjectId::from_bytes(&[byte; 20]).unwrap())
}

fn id(bytes: &[u8]) -> SegmentId {
    SegmentId(Digest::of(bytes))
}

/// An object that is there. What is near may be older for a moment, while a bucket takes long to answer.
fn whole(tier: &dyn Tier, key: &Key) -> Whole {
    let authority = Patient::new(tier.authority());
    let whole = authority.read_whole(key).unwrap().unwrap();
    wait_until("what is near is what counts", || {
        let near = tier.read_whole(key).unwrap();
        near.is_some_and(|near| near.bytes == whole.bytes)
    });
    whole
}

fn version(tier: &dyn Tier, key: &Key) -> Version {
    whole(tier, key).version
}

fn bytes(tier: &dyn Tier, key: &Key) -> Vec<u8> {
    whole(tier, key).bytes
}
