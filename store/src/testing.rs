//! Objects for tests of the store.

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::path::Path;

use cachewfs_format::{Digest, Manifest, Pointer, RepoName, SegmentId, SnapshotId};

use crate::{NewSegment, Protection, Shelf, Store};

/// Returns the snapshot shelf of some repository.
pub(crate) fn shelf() -> Shelf {
    Shelf::of_snapshots(&RepoName::parse("example.com/a").unwrap())
}

/// Returns pseudo-random bytes. Equal seeds give equal bytes.
pub(crate) fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2) + 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Returns a segment with the content `bytes`, in a new file in `directory`.
pub(crate) fn new_segment(directory: &Path, bytes: &[u8]) -> NewSegment {
    let file = tempfile::NamedTempFile::new_in(directory).unwrap();
    let (mut file, path) = file.keep().unwrap();
    file.write_all(bytes).unwrap();
    NewSegment {
        id: SegmentId(Digest::of(bytes)),
        file: path,
        len: bytes.len() as u64,
    }
}

/// Returns a protection of no objects, which is as good as any while no collector runs.
pub(crate) fn protection(store: &Store, repo: &RepoName) -> Protection {
    let nothing = (None, &HashSet::new());
    store.protect(repo, nothing, || false).unwrap()
}

/// Returns a manifest without segments.
pub(crate) fn manifest(repo: &RepoName, snapshot: SnapshotId, created_at: u64) -> Manifest {
    Manifest {
        version: Manifest::VERSION,
        repo: repo.clone(),
        snapshot,
        refs_digest: Digest::of(b"refs"),
        created_at,
        archives: BTreeMap::new(),
        packs: Vec::new(),
        commit_graphs: Vec::new(),
        tips: Vec::new(),
        runs: Vec::new(),
        notice: None,
        lfs_objects: Vec::new(),
    }
}

/// Returns a pointer to the manifest with this digest.
pub(crate) fn pointer_to(snapshot: SnapshotId, manifest: Digest) -> Pointer {
    Pointer {
        version: Pointer::VERSION,
        snapshot,
        manifest,
        archives: BTreeMap::new(),
        published_at: 7,
        replaced: Vec::new(),
        notice: None,
        fence: 0,
    }
}
