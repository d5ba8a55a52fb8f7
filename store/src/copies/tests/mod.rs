//! Tests of the copies of a bucket that counts, waits and fails.

mod small;

use std::fs::{self, File};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cachewfs_format::{ObjectId, SnapshotId};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::key::{Key, ShelfPart};
use crate::objects::{Extent, Written};
use crate::testing::{ObjectsNow as _, new_segment, noise, shelf};
use crate::wrapped::{Call, Count, Gate, Wrapped, outage, refusal};
use crate::{BucketError, BucketTier, DiskTier, NoticePeriod, TierError};

const MIB: usize = 1 << 20;

type Fault = Arc<Mutex<Option<fn() -> BucketError>>>;

/// Copies of a "bucket" that is another directory.
struct World {
    directory: TempDir,
    copies: Arc<Copies>,
    /// Counts reads of parts from the bucket, and of whole objects.
    reads: Count,
    whole_reads: Count,
    gate: Gate,
    /// A gate for reads of whole objects and for stats.
    small_gate: Gate,
    /// A gate for swaps and listings.
    other_gate: Gate,
    /// The error that the bucket gives.
    fault: Fault,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl World {
    fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), 1 << 30)
    }

    fn start_in(directory: TempDir, disk: u64) -> Self {
        let at = |name: &str| directory.path().join(name);
        let bucket = DiskTier::create(&at("bucket"), &at("bucket-tmp")).unwrap();
        let local = DiskTier::create(&at("disk"), &at("tmp")).unwrap();
        let (reads, whole_reads, gate) = (Count::default(), Count::default(), Gate::default());
        let (small_gate, other_gate) = (Gate::default(), Gate::default());
        let fault = Fault::default();
        let (count, count_whole, wait) = (reads.clone(), whole_reads.clone(), gate.clone());
        let (present, wait_small) = (Arc::clone(&fault), small_gate.clone());
        let wait_others = other_gate.clone();
        let remote = Wrapped::new(Arc::new(bucket), move |call| {
            match call {
                Call::Read => {
                    count.note();
                    wait.pass();
                }
                Call::ReadWhole => {
                    count_whole.note();
                    wait_small.pass();
                }
                Call::Stat => wait_small.pass(),
                Call::Swap | Call::List => wait_others.pass(),
                _ => {}
            }
            let fault = *present.lock().unwrap();
            fault.map_or(Ok(()), |fault| Err(fault()))
        });
        let limits = CopyLimits {
            memory: 16 * MIB as u64,
            disk,
        };
        let copies = Copies::new(
            BucketTier::new(Arc::new(remote)),
            (local, at("tmp")),
            limits,
        );
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        copies.start(&tasks, &stop);
        Self {
            directory,
            copies: Arc::new(copies),
            reads,
            whole_reads,
            gate,
            small_gate,
            other_gate,
            fault,
            stop,
            tasks,
        }
    }

    /// Restarts in the same directory. `is_kept` says whether the local copies are kept.
    async fn restart(self, is_kept: bool) -> Self {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if !is_kept {
            fs::remove_dir_all(self.directory.path().join("disk")).unwrap();
        }
        Self::start_in(self.directory, 1 << 30)
    }

    fn set_fault(&self, fault: Option<fn() -> BucketError>) {
        *self.fault.lock().unwrap() = fault;
    }

    fn bucket(&self) -> DiskTier {
        let at = |name: &str| self.directory.path().join(name);
        DiskTier::create(&at("bucket"), &at("bucket-tmp")).unwrap()
    }

    /// Stores a segment in the bucket alone.
    fn put(&self, bytes: &[u8]) -> Key {
        let segment = new_segment(&self.directory.path().join("bucket-tmp"), bytes);
        let key = Key::segment(&shelf(), segment.id);
        self.bucket()
            .create_segments(&shelf(), vec![segment])
            .unwrap();
        key
    }

    async fn read(&self, key: &Key, offset: usize, len: usize) -> Result<Vec<u8>, TierError> {
        let (copies, key) = (Arc::clone(&self.copies), key.clone());
        let read = move || {
            let mut bytes = vec![0; len];
            copies.read_at(&key, offset as u64, &mut bytes)?;
            Ok(bytes)
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    /// Returns the path of an object's local copy.
    fn copy(&self, key: &Key) -> std::path::PathBuf {
        self.directory.path().join("disk").join(key.to_string())
    }
}

fn extent(key: &Key, len: usize, range: std::ops::Range<usize>) -> Extent {
    Extent {
        key: key.clone(),
        len: len as u64,
        range: range.start as u64..range.end as u64,
    }
}

fn manifest() -> Key {
    let commit = ObjectId::from_bytes(&[1; 20]).unwrap();
    Key::manifest(&shelf(), SnapshotId::first(commit))
}

async fn eventually(is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    waited.expect("it didn't become true in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_want_is_fetched_once_and_the_rest_follows() {
    let world = World::start();
    let content = noise(1, 9 * MIB + 5);
    let key = world.put(&content);
    world.gate.set_shut(true);

    let wanted = extent(&key, content.len(), 5 * MIB..5 * MIB + 9);
    let wanted = [wanted];
    let all = futures_util::future::join_all((0..20).map(|_| world.copies.fetch_local(&wanted)));
    let open = async {
        tokio::task::yield_now().await;
        world.gate.set_shut(false);
    };
    let (outcomes, ()) = tokio::join!(all, open);

    assert!(outcomes.iter().all(Result::is_ok));
    eventually(|| world.copy(&key).exists()).await;
    assert_eq!(world.reads.take(), 3, "once each part");
    assert!(fs::read(world.copy(&key)).unwrap() == content);
    let read = world.read(&key, 4 * MIB - 3, 5 * MIB).await.unwrap();
    assert!(read == content[4 * MIB - 3..9 * MIB - 3]);
    assert_eq!(world.reads.take(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_in_memory_becomes_part_of_the_copy() {
    let world = World::start();
    let content = noise(3, 9 * MIB);
    let key = world.put(&content);
    // As if a fill had been given up in an outage.
    let first = content[..4 * MIB].to_vec();
    world.copies.fetcher.memory.put(&key, 0, first.into());

    world.read(&key, 8 * MIB, MIB).await.unwrap();

    eventually(|| world.copy(&key).exists()).await;
    assert!(fs::read(world.copy(&key)).unwrap() == content);
    assert_eq!(world.reads.take(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_reader_does_not_cancel_the_fetch_of_others() {
    let world = World::start();
    let content = noise(2, 100_000);
    let key = world.put(&content);
    world.gate.set_shut(true);
    let wanted = [extent(&key, content.len(), 0..1)];

    let gone =
        tokio::time::timeout(Duration::from_millis(20), world.copies.fetch_local(&wanted)).await;
    let stays = world.copies.fetch_local(&wanted);
    let open = async { world.gate.set_shut(false) };
    let (stays, ()) = tokio::join!(stays, open);

    assert!(gone.is_err() && stays.is_ok());
    assert_eq!(world.reads.take(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn published_segments_are_cached_and_survive_the_loss_of_the_disk() {
    let world = World::start();
    let content = noise(3, 300_000);
    let new = new_segment(&world.directory.path().join("tmp"), &content);
    let key = Key::segment(&shelf(), new.id);
    world.copies.create_segments(&shelf(), vec![new]).unwrap();

    assert!(world.read(&key, 0, content.len()).await.unwrap() == content);
    assert_eq!(world.reads.take(), 0);
    let world = world.restart(false).await;
    assert!(world.read(&key, 0, content.len()).await.unwrap() == content);
    assert_eq!(world.reads.take(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_published_segments_are_cached_as_fit() {
    let world = World::start_in(tempfile::tempdir().unwrap(), 8 * MIB as u64);
    let lens = [(0, 1), (1, 5), (2, 1), (3, 2), (4, 1), (5, 1)];
    let contents = lens.map(|(seed, mib)| noise(seed, mib * MIB));
    let tmp = world.directory.path().join("tmp");
    let new: Vec<_> = contents.iter().map(|new| new_segment(&tmp, new)).collect();
    let keys: Vec<_> = new
        .iter()
        .map(|new| Key::segment(&shelf(), new.id))
        .collect();

    world.copies.create_segments(&shelf(), new).unwrap();

    for (key, content) in keys.iter().zip(&contents) {
        assert!(fs::read(world.bucket().directory().path(key)).unwrap() == *content);
    }
    // A segment that takes more than half of the limit is copied alone, and evicted by the ones
    // after it.
    let near = keys.iter().map(|key| world.copy(key).exists());
    let near: Vec<_> = near.collect();
    assert_eq!(near, [false, false, true, true, true, true]);
    assert_eq!(world.copies.copied_bytes(), 5 * MIB as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_found_again_without_reading_and_the_unused_go_first() {
    let world = World::start();
    let contents: Vec<_> = (0..6).map(|seed| noise(seed, MIB)).collect();
    let keys: Vec<_> = contents.iter().map(|content| world.put(content)).collect();
    for key in &keys {
        world.read(key, 0, MIB).await.unwrap();
    }
    eventually(|| keys.iter().all(|key| world.copy(key).exists())).await;
    let long_ago = std::time::SystemTime::now() - Duration::from_hours(100);
    let times = fs::FileTimes::new()
        .set_accessed(long_ago)
        .set_modified(long_ago);
    for key in &keys[..3] {
        File::open(world.copy(key))
            .unwrap()
            .set_times(times)
            .unwrap();
    }
    world.stop.cancel();
    world.tasks.close();
    world.tasks.wait().await;

    // Room for four copies: the ones that are not used are evicted.
    let world = World::start_in(world.directory, 4 * MIB as u64);
    let is_there = |key: &Key| world.copy(key).exists();
    eventually(|| keys.iter().filter(|key| is_there(key)).count() == 4).await;
    assert!(keys[3..].iter().all(is_there));
    for key in &keys[3..5] {
        world.read(key, 0, MIB).await.unwrap();
    }
    assert_eq!(world.reads.take(), 0);
    let gone = keys[..3].iter().filter(|key| !is_there(key));
    for key in gone.take(2) {
        world.read(key, 0, MIB).await.unwrap();
    }

    eventually(|| keys.iter().filter(|key| is_there(key)).count() <= 4).await;
    // A new copy is counted before another one is evicted for it.
    eventually(|| world.copies.copied_bytes() <= 4 * MIB as u64).await;
    assert!(is_there(&keys[3]) && is_there(&keys[4]), "they were read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_nothing_fails_no_read_and_no_publish() {
    let world = World::start();
    fs::remove_dir_all(world.directory.path().join("tmp")).unwrap();
    let content = noise(4, 5 * MIB);
    let key = world.put(&content);

    assert!(world.read(&key, 0, content.len()).await.unwrap() == content);
    let published = noise(5, 1000);
    let new = new_segment(&world.directory.path().join("bucket-tmp"), &published);
    let new_key = Key::segment(&shelf(), new.id);
    let stored = world.copies.create_segments(&shelf(), vec![new]);
    assert_eq!(stored.unwrap(), 1000);
    let manifest = manifest();
    world.copies.create(&manifest, b"manifest").unwrap();
    world
        .copies
        .swap(&Key::pointer(&shelf()), None, b"pointer")
        .unwrap();

    assert!(world.read(&new_key, 0, 1000).await.unwrap() == published);
    let whole = world.copies.read_whole(&manifest).unwrap();
    assert_eq!(whole.unwrap().bytes, b"manifest");
    let whole = world.copies.read_whole(&Key::pointer(&shelf())).unwrap();
    assert_eq!(whole.unwrap().bytes, b"pointer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_copy_is_fetched_again() {
    let world = World::start();
    let content = noise(6, 200_000);
    let key = world.put(&content);
    world.read(&key, 0, content.len()).await.unwrap();
    eventually(|| world.copy(&key).exists()).await;
    let world = world.restart(true).await;
    let copy = File::options().write(true).open(world.copy(&key)).unwrap();
    copy.set_len(1000).unwrap();

    let read = world.read(&key, 100_000, 100_000).await.unwrap();

    assert!(read == content[100_000..]);
    eventually(|| fs::metadata(world.copy(&key)).is_ok_and(|copy| copy.len() == 200_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_are_fetched_ahead() {
    let world = World::start();
    let contents: Vec<_> = (0..4).map(|seed| noise(20 + seed, 100_000)).collect();
    let keys: Vec<_> = contents.iter().map(|content| world.put(content)).collect();
    let extents: Vec<_> = keys
        .iter()
        .map(|key| extent(key, 100_000, 0..100_000))
        .collect();

    world.copies.fetch_local_soon(extents);
    eventually(|| keys.iter().all(|key| world.copy(key).exists())).await;

    assert_eq!(world.reads.take(), 4);
    let mut bytes = vec![0; 1000];
    assert!(world.copies.read_now(&keys[2], 500, &mut bytes));
    assert!(bytes == contents[2][500..1500]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fetched_at_once_takes_no_more_room_than_there_is_and_leaves_copies() {
    let world = World::start_in(tempfile::tempdir().unwrap(), 10 * MIB as u64);
    let small: Vec<_> = (0..3).map(|seed| world.put(&noise(seed, MIB))).collect();
    for key in &small {
        world.read(key, 0, MIB).await.unwrap();
    }
    let are_there = || small.iter().all(|key| world.copy(key).exists());
    eventually(are_there).await;
    let large: Vec<_> = (10..13).map(|seed| noise(seed, 4 * MIB)).collect();
    let keys: Vec<_> = large.iter().map(|content| world.put(content)).collect();
    let wanted: Vec<_> = keys
        .iter()
        .map(|key| extent(key, 4 * MIB, 0..4 * MIB))
        .collect();
    let taken = || {
        let of = |name: &str| cachewfs_tests::bytes_below(&world.directory.path().join(name));
        of("disk") + of("tmp")
    };

    world.reads.take();
    world.gate.set_shut(true);
    let look = async {
        eventually(|| world.reads.current() >= 3).await;
        let taken = taken();
        world.gate.set_shut(false);
        taken
    };
    let (brought, taken_meanwhile) = tokio::join!(world.copies.fetch_local(&wanted), look);

    brought.unwrap();
    assert!(taken_meanwhile <= 10 * MIB as u64, "{taken_meanwhile}");
    assert!(are_there(), "fills evict at most half of the copies");
    for (key, content) in keys.iter().zip(&large) {
        assert!(world.read(key, 0, 4 * MIB).await.unwrap() == *content);
    }
    eventually(|| keys.iter().any(|key| world.copy(key).exists())).await;
}
