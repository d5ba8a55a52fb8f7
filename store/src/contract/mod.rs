//! The contract of objects: in every tier, with local copies, and in every wrapper.
//!
//! ```text
//! objects, segments, races    what all tiers must do
//! failures                    what a tier must do if its calls sometimes fail
//! retrying                    the caller, which retries failed calls
//! runs                        runs the contract with a tier in each wrapper
//! ```
//!
//! The crate `s3` includes these files: for them, `crate` is the store or that crate.
//!
//! Each check has repositories of its own, so they can run one after the other in one tier.

mod failures;
mod objects;
mod races;
mod retrying;
pub(crate) mod runs;
mod segments;

use std::path::Path;

use cachewfs_format::{Digest, ObjectId, RepoName, SegmentId, SnapshotId};
use cachewfs_tests::wait_until;
use retrying::Retrying;

use crate::{Key, Shelf, Tiers, Version, Whole};

/// Runs all checks and retries failed calls. New segments are first written to `tmp`. Returns how
/// many calls failed.
///
/// For a thread that may block, inside a runtime.
fn keeps_the_contract(tiers: &Tiers, tmp: &Path) -> usize {
    let retrying = Retrying::new(tiers);
    objects::check(&retrying, tmp);
    segments::check(&retrying, tmp);
    races::check(&retrying);
    failures::check(tiers, tmp);
    retrying.failures()
}

pub(crate) fn repo(name: &str) -> Shelf {
    Shelf::of_snapshots(&RepoName::parse(&format!("example.com/{name}")).unwrap())
}

fn snapshot(byte: u8) -> SnapshotId {
    SnapshotId::first(ObjectId::from_bytes(&[byte; 20]).unwrap())
}

pub(crate) fn id(bytes: &[u8]) -> SegmentId {
    SegmentId(Digest::of(bytes))
}

/// Returns an object that exists. Waits until the tier returns the same bytes as the authoritative
/// one: a cached pointer may be older for a moment.
fn whole(tier: &Retrying<'_>, key: &Key) -> Whole {
    let whole = tier.authoritative().read_whole(key).unwrap().unwrap();
    wait_until(
        "the tier returns the object of the authoritative tier",
        || {
            let near = tier.read_whole(key).unwrap();
            near.is_some_and(|near| near.bytes == whole.bytes)
        },
    );
    whole
}

fn version(tier: &Retrying<'_>, key: &Key) -> Version {
    whole(tier, key).version
}

fn bytes(tier: &Retrying<'_>, key: &Key) -> Vec<u8> {
    whole(tier, key).bytes
}
