//! The requests that reads make, and the results of reads when the disk fails. The tests count
//! requests and measure no time.

mod eviction;
mod faults;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::{
    Chunk, ChunkEncoding, Digest, GitPath, ObjectId, PackKind, RepoName, Role, SegmentWriter,
    SnapshotId, TocFile, TocSegment, encode_chunk,
};
use tempfile::TempDir;

use super::{Backend, ReadError, Segment, SegmentLocation, Segments};
use crate::cache::Cache;
use crate::testing::scripted::{RangeFault, ScriptedSource};
use crate::traffic::{Purpose, Traffic};

const CHUNK_LEN: usize = 256 << 10;

/// Returns content that zstd can't shrink to almost nothing and whose chunks differ.
pub(super) fn mixed(len: usize) -> Vec<u8> {
    let blocks = (0_u8..=255).flat_map(|block| [block; 2048]).cycle();
    let mixed = (0_u8..251)
        .cycle()
        .zip(blocks)
        .map(|(one, other)| one ^ other);
    mixed.take(len).collect()
}

/// Returns the stored bytes of a segment that has one file, and its record.
pub(super) fn stored_segment(role: Role, content: &[u8]) -> (Vec<u8>, TocSegment) {
    let len = content.len() as u64;
    let mut writer = SegmentWriter::default();
    let mut stored = Vec::new();
    for piece in content.chunks(CHUNK_LEN) {
        let (chunk, bytes): (Chunk, _) = encode_chunk(piece, ChunkEncoding::Raw).unwrap();
        writer.push_chunk(chunk);
        stored.extend(bytes);
    }
    let (id, table) = writer.finish().unwrap();
    stored.extend(&table);
    let path = GitPath::parse(b"objects/pack/pack-x.pack").unwrap();
    let record = TocSegment {
        id,
        role,
        stored_len: stored.len() as u64,
        table_len: u32::try_from(table.len()).unwrap(),
        content_len: len,
        file: Some(TocFile {
            path,
            size: len,
            mtime: 1,
        }),
    };
    (stored, record)
}

/// Registers the segment of `record` at the start of the scripted archive.
fn intern(segments: &Segments, record: &TocSegment) -> Arc<Segment> {
    let location = SegmentLocation {
        repo: RepoName::parse("example.com/project").unwrap(),
        path: "/archive".into(),
        offset: 0,
    };
    segments.intern(record, location)
}

/// A scripted source with one segment, and a cache directory that outlives restarts.
pub(super) struct Fixture {
    content: Vec<u8>,
    pub(super) source: Arc<ScriptedSource>,
    pub(super) record: TocSegment,
    cache_dir: TempDir,
    read_timeout: Duration,
}

impl Fixture {
    pub(super) fn new(role: Role, len: usize) -> Self {
        Self::with_content(role, mixed(len))
    }

    fn with_content(role: Role, content: Vec<u8>) -> Self {
        let (stored, record) = stored_segment(role, &content);
        let snapshot = SnapshotId::first(ObjectId::parse(&"1".repeat(40)).unwrap());
        let source = ScriptedSource::new(stored, snapshot, Digest::of(b"").to_string());
        Self {
            content,
            source,
            record,
            cache_dir: TempDir::new().unwrap(),
            read_timeout: Duration::from_secs(2),
        }
    }

    /// Returns the segment as a freshly started process has it: all state is read from the disk.
    pub(super) fn start(&self) -> Arc<Segment> {
        intern(&self.segments(), &self.record)
    }

    pub(super) fn segments(&self) -> Segments {
        let backend = Backend::new(
            self.source.clone(),
            Cache::open(self.cache_dir.path(), 1 << 40).unwrap(),
            Arc::new(Traffic::default()),
            self.read_timeout,
        );
        Segments::new(Arc::new(backend))
    }

    pub(super) async fn read(
        &self,
        segment: &Arc<Segment>,
        at: usize,
        len: usize,
    ) -> Result<(), ReadError> {
        let range = at as u64..(at + len) as u64;
        let read = segment.read(range, Purpose::Demand).await?;
        let end = (at + len).min(self.content.len());
        assert!(read == self.content[at..end], "wrong bytes at {at}");
        Ok(())
    }

    /// Evicts all segments, as another process on this cache does.
    pub(super) fn evict_as_another_mount(&self) {
        let cache = Cache::open(self.cache_dir.path(), 1).unwrap();
        assert!(!cache.evict(&HashSet::new()).unwrap().is_empty());
    }

    /// Changes one byte of the content on disk, without its checksum.
    fn damage_disk(&self, at: u64) {
        use std::os::unix::fs::FileExt as _;
        let name = format!("{}.data", self.record.id);
        let shard = self.cache_dir.path().join("v1").join(name.split_at(2).0);
        let file = std::fs::File::options()
            .write(true)
            .open(shard.join(name))
            .unwrap();
        file.write_all_at(&[self.content[usize::try_from(at).unwrap()] ^ 0xFF], at)
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_sequential_read_of_8_mib_makes_at_most_6_requests() {
    let fixture = Fixture::new(Role::Pack(PackKind::History), 8 << 20);
    let segment = fixture.start();

    for at in (0..8 << 20).step_by(128 << 10) {
        fixture.read(&segment, at, 128 << 10).await.unwrap();
    }

    let requests = fixture.source.take_requests();
    assert!(requests.len() <= 6, "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_read_makes_no_request_also_after_a_restart() {
    let fixture = Fixture::new(Role::Pack(PackKind::Tip), 3 << 20);
    fixture.read(&fixture.start(), 0, 3 << 20).await.unwrap();
    fixture.source.take_requests();

    fixture.read(&fixture.start(), 5, 2 << 20).await.unwrap();

    assert_eq!(fixture.source.take_requests(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_segment_comes_with_its_table_in_one_request() {
    let fixture = Fixture::new(Role::PackIndex, 700 << 10);

    fixture
        .read(&fixture.start(), 100, 600 << 10)
        .await
        .unwrap();

    assert_eq!(
        fixture.source.take_requests(),
        [(0, fixture.record.stored_len)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_of_a_chunk_share_a_request() {
    let fixture = Arc::new(Fixture::new(Role::Pack(PackKind::History), 4 << 20));
    let segment = fixture.start();
    segment.table(Purpose::Demand).await.unwrap();
    fixture.source.take_requests();

    let readers = (0..16).map(|_| {
        let (fixture, segment) = (Arc::clone(&fixture), Arc::clone(&segment));
        tokio::spawn(async move { fixture.read(&segment, 1 << 20, 1000).await.unwrap() })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }

    assert_eq!(fixture.source.take_requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_disk_shows_nothing_wrong_after_a_restart() {
    let fixture = Fixture::new(Role::Pack(PackKind::History), 2 << 20);
    fixture.read(&fixture.start(), 0, 2 << 20).await.unwrap();
    fixture.damage_disk(300_000);
    fixture.source.take_requests();

    fixture.read(&fixture.start(), 0, 2 << 20).await.unwrap();

    assert_eq!(fixture.source.take_requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn evicted_chunks_are_fetched_again() {
    let fixture = Fixture::new(Role::Pack(PackKind::History), 2 << 20);
    let segment = fixture.start();
    fixture.read(&segment, 0, 2 << 20).await.unwrap();

    fixture.evict_as_another_mount();
    segment.forget_files();

    fixture.read(&segment, 0, 2 << 20).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_size_of_a_shared_segment_does_not_change_the_first() {
    // Zeros at the end: from 1017 on, any size could be the right one.
    let fixture = Fixture::with_content(Role::LargeFile, [&[1; 1017][..], &[0; 7]].concat());
    let segments = fixture.segments();
    let file = fixture.record.file.clone().unwrap();
    let other = TocSegment {
        file: Some(TocFile { size: 1017, ..file }),
        ..fixture.record.clone()
    };
    let first = intern(&segments, &fixture.record);
    fixture.read(&first, 0, 1024).await.unwrap();

    // Once in this process, and once in a fresh one that sees the other size first.
    for segments in [segments, fixture.segments()] {
        let second = intern(&segments, &other);
        let read = second.read(0..1024, Purpose::Demand).await.unwrap();

        assert_eq!(read, fixture.content[..1017]);
        assert_eq!(first.len(), 1024);
        let data = first.opened_file().unwrap().data().metadata().unwrap();
        assert_eq!(data.len(), 1024);
        fixture.read(&first, 0, 1024).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_cuts_content_off_is_refused() {
    let mut fixture = Fixture::with_content(Role::Pack(PackKind::Tip), vec![1; 1024]);
    fixture.record.file.as_mut().unwrap().size = 1023;

    let read = fixture.read(&fixture.start(), 0, 1024).await;

    assert!(matches!(read, Err(ReadError::Fetch(_))), "{read:?}");
}

/// Returns a segment of less than 400 KiB that decompresses to 1.6 GiB of zeros.
fn bomb(role: Role) -> Fixture {
    let zeros = vec![0; 4 << 20];
    let (chunk, bytes) = encode_chunk(&zeros, ChunkEncoding::Zstd(1)).unwrap();
    let mut writer = SegmentWriter::default();
    let mut stored = Vec::new();
    for _ in 0..400 {
        writer.push_chunk(chunk);
        stored.extend_from_slice(&bytes);
    }
    let (id, table) = writer.finish().unwrap();
    stored.extend(&table);
    let mut fixture = Fixture::with_content(role, vec![0; 100]);
    fixture.record.id = id;
    fixture.record.stored_len = stored.len() as u64;
    fixture.record.table_len = u32::try_from(table.len()).unwrap();
    fixture.record.content_len = 400 << 22;
    fixture.record.file.as_mut().unwrap().size = 400 << 22;
    assert!(stored.len() < 400 << 10);
    let snapshot = SnapshotId::first(ObjectId::parse(&"1".repeat(40)).unwrap());
    fixture.source = ScriptedSource::new(stored, snapshot, Digest::of(b"").to_string());
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn one_read_decompresses_little_of_a_bomb() {
    for role in [Role::Pack(PackKind::History), Role::PackIndex] {
        let fixture = bomb(role);
        let segment = fixture.start();

        segment.fetch_front().await.unwrap();
        fixture.read(&segment, 0, 100).await.unwrap();

        let cached = segment.backend.cache.used_bytes();
        assert!((4 << 20..=16 << 20).contains(&cached), "{role:?}: {cached}");
    }
}
