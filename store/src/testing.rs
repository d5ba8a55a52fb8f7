//! Objects for tests of the store.

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::path::Path;
use std::sync::LazyLock;

use cachewfs_format::{Digest, Manifest, Pointer, RepoName, SegmentId, SnapshotId};
use tokio::runtime::{Handle, Runtime};
use tokio::task::block_in_place;

use crate::{
    Key, Listed, NewSegment, Objects, Protection, Shelf, ShelfPart, Stat, Store, TierError,
    Version, Whole, Written,
};

/// Runs a call of the store to its end, on a thread with or without a runtime.
pub(crate) fn now<T>(call: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    match Handle::try_current() {
        Ok(runtime) => block_in_place(|| runtime.block_on(call)),
        Err(_) => RUNTIME.block_on(call),
    }
}

/// The calls of [`Objects`], each of which runs to its end [now]. So the tests read like a list of
/// steps.
pub(crate) trait ObjectsNow: Objects {
    fn read_at(&self, key: &Key, offset: u64, into: &mut [u8]) -> Result<(), TierError> {
        now(Objects::read_at(self, key, offset, into))
    }

    fn read_whole(&self, key: &Key) -> Result<Option<Whole>, TierError> {
        now(Objects::read_whole(self, key))
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Written, TierError> {
        now(Objects::create(self, key, bytes))
    }

    fn create_segments(&self, shelf: &Shelf, segments: Vec<NewSegment>) -> Result<u64, TierError> {
        now(Objects::create_segments(self, shelf, segments))
    }

    fn swap(
        &self,
        key: &Key,
        expected: Option<&Version>,
        bytes: &[u8],
    ) -> Result<Written, TierError> {
        now(Objects::swap(self, key, expected, bytes))
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, TierError> {
        now(Objects::stat(self, key))
    }

    fn list(&self, shelf: &Shelf, part: ShelfPart) -> Result<Vec<Listed>, TierError> {
        now(Objects::list(self, shelf, part))
    }

    fn repositories(&self) -> Result<Vec<RepoName>, TierError> {
        now(Objects::repositories(self))
    }

    fn delete(&self, keys: &[Key]) -> Result<(), TierError> {
        now(Objects::delete(self, keys))
    }

    fn set_aside(&self, shelf: &Shelf, id: SegmentId) -> Result<(), TierError> {
        now(Objects::set_aside(self, shelf, id))
    }
}

impl<T: Objects + ?Sized> ObjectsNow for T {}

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
    now(store.protect(repo, nothing, || false)).unwrap()
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
