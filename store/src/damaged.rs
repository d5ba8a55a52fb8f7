//! Tests with damaged local copies and damaged objects in the bucket.

use std::fs::{self, File};
use std::sync::Arc;

use cachewfs_format::{
    ArchiveKind, ArchiveLayout, ChunkEncoding, Digest, Manifest, ObjectId, RepoName, SegmentId,
    SegmentRef, SegmentWriter, SnapshotId, encode_chunk,
};
use tempfile::TempDir;

use super::collect::Deleting;
use super::content::Stored;
use super::key::Key;
use super::testing::{ObjectsNow as _, manifest, new_segment, noise, now, pointer_to, protection};
use super::wrapped::Wrapped;
use super::{
    BucketTier, Collection, Copies, CopyLimits, DiskTier, Keep, NewSegment, Store, StoreError,
};

/// A "bucket" that is a directory, and a daemon with local copies of it.
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

    /// Returns a segment to be stored under `id`, whatever its bytes are.
    fn new_segment(&self, id: SegmentId, bytes: &[u8]) -> NewSegment {
        let tmp = self.directory.path().join("bucket-tmp");
        NewSegment {
            id,
            ..new_segment(&tmp, bytes)
        }
    }

    fn key(&self, id: SegmentId) -> Key {
        Key::segment(&self.store.shelf(&self.repo), id)
    }
}

/// Returns the disk tier with a daemon's copies, and its store.
fn replica(directory: &TempDir, bucket: &DiskTier, name: &str) -> (DiskTier, Store) {
    let root = directory.path().join(name);
    let tmp = root.join("tmp");
    let copies = DiskTier::create(&root, &tmp).unwrap();
    let remote = Arc::new(Wrapped::new(Arc::new(bucket.clone()), |_| Ok(())));
    let limits = CopyLimits {
        memory: 1 << 20,
        disk: 1 << 30,
    };
    let both = Copies::new(BucketTier::new(remote), (copies.clone(), tmp), limits);
    let store = Store::new(both).with_deleting(Deleting::Locked(bucket.clone()));
    (copies, store)
}

fn snapshot(byte: u8) -> SnapshotId {
    SnapshotId::first(ObjectId::from_bytes(&[byte; 20]).unwrap())
}

/// Returns content, and a segment that has it in three chunks.
fn segment() -> (Vec<u8>, Stored, Vec<u8>) {
    let content = noise(1, 30_000);
    let (mut writer, mut bytes) = (SegmentWriter::default(), Vec::new());
    for content in content.chunks(10_000) {
        let (chunk, stored) = encode_chunk(content, ChunkEncoding::Raw).unwrap();
        writer.push_chunk(chunk);
        bytes.extend(stored);
    }
    let (id, table) = writer.finish().unwrap();
    bytes.extend(&table);
    let stored = Stored {
        segment: SegmentRef {
            id,
            len: bytes.len() as u64,
        },
        table_len: u32::try_from(table.len()).unwrap(),
    };
    (content, stored, bytes)
}

fn content_of(store: &Store, repo: &RepoName, stored: Stored) -> Result<Vec<u8>, StoreError> {
    let mut content = Vec::new();
    let read = || now(store.copy_content(repo, stored, (30_000, &mut content)));
    tokio::task::block_in_place(read)?;
    Ok(content)
}

/// Returns a manifest that names one segment.
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
async fn a_wrong_copy_of_a_manifest_is_replaced() {
    let World {
        bucket,
        copies,
        store,
        repo,
        ..
    } = &World::start();
    let (id, good) = (snapshot(1), manifest(repo, snapshot(1), 7));
    let (_, digest) = now(store.put_manifest(&good, &protection(store, repo))).unwrap();
    let pointer = pointer_to(id, digest);
    let key = Key::manifest(&store.shelf(repo), id);
    let of_before = manifest(repo, id, 6).to_json().unwrap();
    let elsewhere = manifest(repo, snapshot(2), 7).to_json().unwrap();

    for copy in [&b"rotten"[..], &of_before, &elsewhere] {
        copies.directory().put(&key, copy).unwrap();
        assert_eq!(now(store.current_manifest(repo, &pointer)).unwrap(), good);
        let copy = copies.read_whole(&key).unwrap().unwrap().bytes;
        assert_eq!(Digest::of(&copy), digest, "the copy is good now");
    }
    copies.directory().put(&key, b"rotten").unwrap();
    assert_eq!(now(store.manifest(repo, id)).unwrap().unwrap().0, good);

    bucket.directory().put(&key, b"rotten").unwrap();
    copies.directory().put(&key, b"rotten").unwrap();
    let error = now(store.current_manifest(repo, &pointer)).unwrap_err();
    assert!(matches!(error, StoreError::Unreadable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_reads_no_local_copies() {
    let world = World::start();
    let World {
        copies,
        store,
        repo,
        ..
    } = &world;
    let [named, other] = [&b"named"[..], b"other"].map(|bytes| SegmentId(Digest::of(bytes)));
    let new = [named, other].map(|id| world.new_segment(id, b"segment"));
    now(store.put_segments(repo, new.into())).unwrap();
    let protection = protection(store, repo);
    let manifest = naming(repo, named);
    let (_, digest) = now(store.put_manifest(&manifest, &protection)).unwrap();
    let pointer = pointer_to(manifest.snapshot, digest);
    now(store.swap_pointer(repo, (None, &pointer), &protection)).unwrap();
    let key = Key::manifest(&store.shelf(repo), manifest.snapshot);
    let of_before = naming(repo, other).to_json().unwrap();
    copies.directory().put(&key, &of_before).unwrap();

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
    let collected = now(store.collect(repo, collection)).unwrap();

    assert_eq!(collected.segments, 1);
    assert_eq!(now(store.segments(repo)).unwrap(), [named].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_of_a_segment_is_dropped_and_the_bucket_is_read() {
    let world = World::start();
    let (content, stored, bytes) = segment();
    let id = stored.segment.id;
    let new = world.new_segment(id, &bytes);
    now(world.store.put_segments(&world.repo, vec![new])).unwrap();
    let copy = world.copies.directory().path(&world.key(id));
    let len = bytes.len();
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        bytes
    };

    for damaged in [flipped(15_000), flipped(len - 5), bytes[..20_000].to_vec()] {
        world
            .copies
            .directory()
            .put(&world.key(id), &damaged)
            .unwrap();
        let read = content_of(&world.store, &world.repo, stored).unwrap();
        assert!(read == content);
        assert!(fs::read(&copy).is_ok_and(|copy| copy == bytes) || !copy.exists());
    }
    assert_eq!(now(world.store.segments(&world.repo)).unwrap(), [id].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_damaged_in_the_bucket_is_stored_again() {
    let world = World::start();
    let World {
        bucket,
        copies,
        store,
        repo,
        ..
    } = &world;
    let (content, stored, bytes) = segment();
    let id = stored.segment.id;
    let mut damaged = bytes.clone();
    damaged[15_000] ^= 1;
    let shelf = store.shelf(repo);
    let new = world.new_segment(id, &damaged);
    bucket.create_segments(&shelf, vec![new]).unwrap();
    // The read also makes a copy.
    content_of(store, repo, stored).unwrap_err();
    copies.directory().put(&world.key(id), &damaged).unwrap();

    let error = content_of(store, repo, stored).unwrap_err();
    now(store.set_damaged_aside(&error)).unwrap();

    assert!(now(store.segments(repo)).unwrap().is_empty());
    assert!(store.may_be_damaged(repo));
    // As if a copy of the damaged segment had been in flight.
    copies.directory().put(&world.key(id), &damaged).unwrap();
    let new = world.new_segment(id, &bytes);
    let new_bytes = now(store.put_segments(repo, vec![new])).unwrap();
    assert_eq!(new_bytes, bytes.len() as u64);
    assert!(content_of(store, repo, stored).unwrap() == content);
    assert!(fs::read(copies.directory().path(&world.key(id))).unwrap() == bytes);
    let (_, elsewhere) = replica(&world.directory, bucket, "another");
    assert!(content_of(&elsewhere, repo, stored).unwrap() == content);
    File::open(bucket.directory().path(&world.key(id))).unwrap();
}
