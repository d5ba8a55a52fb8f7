//! What is done about copies that are damaged.

use std::sync::Arc;

use cachewfs_format::{
    ArchiveKind, ArchiveLayout, Digest, Manifest, ObjectId, RepoName, SegmentId, SegmentRef,
    SnapshotId,
};
use tempfile::TempDir;

use super::key::Key;
use super::testing::{manifest, new_segment, pointer_to, secured};
use super::tier::Tier as _;
use super::wrapped::Wrapped;
use super::{Collection, DiskTier, Keep, Limits, NewSegment, Store, StoreError, Tiers};

/// A "bucket" that is a directory, and a daemon with copies of it.
struct World {
    directory: TempDir,
    bucket: DiskTier,
    copies: DiskTier,
    store: Store,
    repo: RepoName,
}

impl World {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let bucket = DiskTier::create(&at("bucket"), &at("bucket-tmp")).unwrap();
        let (copies, store) = replica(&directory, &bucket, "replica");
        let repo = RepoName::parse("example.com/a").unwrap();
        Self {
            directory,
            bucket,
            copies,
            store,
            repo,
        }
    }

    /// A segment to be stored under `id`, whatever its bytes are.
    fn new_segment(&self, id: SegmentId, bytes: &[u8]) -> NewSegment {
        let tmp = self.directory.path().join("bucket-tmp");
        NewSegment {
            id,
            ..new_segment(&tmp, bytes)
        }
    }
}

/// A daemon's copies, and its store.
fn replica(directory: &TempDir, bucket: &DiskTier, name: &str) -> (DiskTier, Store) {
    let root = directory.path().join(name);
    let tmp = root.join("tmp");
    let copies = DiskTier::create(&root, &tmp).unwrap();
    let remote = Arc::new(Wrapped::new(bucket.clone(), |_| Ok(())));
    let limits = Limits {
        memory: 1 << 20,
        disk: 1 << 30,
    };
    let tiers = Tiers::new(remote, (copies.clone(), tmp), limits);
    (copies, Store::new(tiers))
}

fn snapshot(byte: u8) -> SnapshotId {
    SnapshotId::first(ObjectId::from_bytes(&[byte; 20]).unwrap())
}

/// A manifest that names one segment.
fn naming(repo: &RepoName, id: SegmentId) -> Manifest {
    let layout = ArchiveLayout {
        toc: Digest::of(b"toc"),
        size: 1,
        segments: Vec::new(),
        tail: SegmentRef { id, len: 1 },
    };
    Manifest {
        archives: [(ArchiveKind::Mirror, layout)].into(),
        ..manifest(repo, snapshot(1), 7)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_manifest_that_does_not_fit_is_read_again() {
    let World {
        bucket,
        copies,
        store,
        repo,
        ..
    } = &World::start();
    let (id, good) = (snapshot(1), manifest(repo, snapshot(1), 7));
    let (_, digest) = store.put_manifest(&good, &secured(store, repo)).unwrap();
    let pointer = pointer_to(id, digest);
    let key = Key::manifest(&store.shelf(repo), id);
    let of_before = manifest(repo, id, 6).to_json().unwrap();
    let elsewhere = manifest(repo, snapshot(2), 7).to_json().unwrap();

    for copy in [&b"rotten"[..], &of_before, &elsewhere] {
        copies.put(&key, copy).unwrap();
        assert_eq!(store.current_manifest(repo, &pointer).unwrap(), good);
        let copy = copies.read_whole(&key).unwrap().unwrap().bytes;
        assert_eq!(Digest::of(&copy), digest, "the copy is good now");
    }
    copies.put(&key, b"rotten").unwrap();
    assert_eq!(store.manifest(repo, id).unwrap().unwrap().0, good);

    bucket.put(&key, b"rotten").unwrap();
    copies.put(&key, b"rotten").unwrap();
    let error = store.current_manifest(repo, &pointer).unwrap_err();
    assert!(matches!(error, StoreError::Unreadable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_believes_no_copy() {
    let world = World::start();
    let World {
        copies,
        store,
        repo,
        ..
    } = &world;
    let [named, other] = [&b"named"[..], b"other"].map(|bytes| SegmentId(Digest::of(bytes)));
    let new = [named, other].map(|id| world.new_segment(id, b"segment"));
    store.put_segments(repo, new.into()).unwrap();
    let secured = secured(store, repo);
    let manifest = naming(repo, named);
    let (_, digest) = store.put_manifest(&manifest, &secured).unwrap();
    let pointer = pointer_to(manifest.snapshot, digest);
    store
        .swap_pointer(repo, (None, &pointer), &secured)
        .unwrap();
    let key = Key::manifest(&store.shelf(repo), manifest.snapshot);
    let of_before = naming(repo, other).to_json().unwrap();
    copies.put(&key, &of_before).unwrap();

    let keep = Keep {
        snapshots: 1,
        age: std::time::Duration::ZERO,
        grace: std::time::Duration::ZERO,
    };
    let collection = Collection {
        keep,
        is_dry_run: false,
        is_stopping: &|| false,
    };
    let collected = store.collect(repo, collection).unwrap();

    assert_eq!(collected.segments, 1);
    assert_eq!(store.segments(repo).unwrap(), [named].into());
}
