//! What tests of tiers store.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::Path;

use cachewfs_format::{Digest, RepoName, SegmentId};

use super::key::Shelf;
use super::tier::NewSegment;
use super::{Secured, Store};

/// The snapshots of some repository.
pub(super) fn shelf() -> Shelf {
    Shelf::of_snapshots(&RepoName::parse("example.com/a").unwrap())
}

/// Bytes that repeat nothing, the same for the same `seed`.
pub(super) fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2) + 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A segment to be stored, in a new file in `directory`.
pub(super) fn new_segment(directory: &Path, bytes: &[u8]) -> NewSegment {
    let file = tempfile::NamedTempFile::new_in(directory).unwrap();
    let (mut file, path) = file.keep().unwrap();
    file.write_all(bytes).unwrap();
    NewSegment {
        id: SegmentId(Digest::of(bytes)),
        file: path,
        len: bytes.len() as u64,
    }
}

/// What nothing was made sure of for; as good as any where nobody deletes.
pub(super) fn secured(store: &Store, repo: &RepoName) -> Secured {
    let nothing = (None, &HashSet::new());
    store.secure(repo, nothing, || false).unwrap()
}
