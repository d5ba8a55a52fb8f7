//! Reads through a cache that is smaller than what is read.

use futures_util::FutureExt as _;

use super::*;

const MIB: usize = 1 << 20;

/// An archive of several segments, one after the other, and a cache with a limit.
struct SmallCache {
    segments: Segments,
    parts: Vec<Arc<Segment>>,
    contents: Vec<Vec<u8>>,
    source: Arc<ScriptedSource>,
    cache_dir: TempDir,
}

impl SmallCache {
    /// Makes a segment of each of these lengths.
    fn new(max_bytes: usize, lens: &[usize]) -> Self {
        let mut contents = Vec::new();
        let mut records = Vec::new();
        let mut archive = Vec::new();
        for (number, &len) in (0_u8..).zip(lens) {
            let content: Vec<u8> = mixed(len).iter().map(|byte| byte ^ number).collect();
            let (stored, record) = stored_segment(Role::LargeFile, &content);
            records.push((archive.len() as u64, record));
            archive.extend(stored);
            contents.push(content);
        }
        let snapshot = SnapshotId::first(ObjectId::parse(&"1".repeat(40)).unwrap());
        let source = ScriptedSource::new(archive, snapshot, Digest::of(b"").to_string());
        let cache_dir = TempDir::new().unwrap();
        let cache = Cache::open(cache_dir.path(), max_bytes as u64).unwrap();
        let timeout = Duration::from_secs(5);
        let backend = Backend::new(source.clone(), cache, Arc::default(), timeout);
        let segments = Segments::new(Arc::new(backend));
        let intern = |(offset, record)| {
            let repo = RepoName::parse("example.com/project").unwrap();
            let path = "/archive".into();
            segments.intern(&record, SegmentLocation { repo, path, offset })
        };
        let parts = records.into_iter().map(intern).collect();
        Self {
            segments,
            parts,
            contents,
            source,
            cache_dir,
        }
    }

    /// Reads a part from its start to its end, as the kernel does.
    async fn read(&self, part: usize) {
        let content = &self.contents[part];
        for at in (0..content.len()).step_by(128 << 10) {
            let end = (at + (128 << 10)).min(content.len());
            let range = at as u64..end as u64;
            let read = self.parts[part].read(range, Purpose::Demand).await.unwrap();
            assert!(read == content[at..end], "wrong bytes at {at} of {part}");
            self.evict_if_woken();
        }
    }

    /// Does what the mount's background task does, without its pauses.
    fn evict_if_woken(&self) {
        let cache = &self.segments.backend().cache;
        if cache.grew().now_or_never().is_some() {
            self.segments.evict();
        }
    }

    fn bytes_on_disk(&self) -> u64 {
        let cache = Cache::open(self.cache_dir.path(), 1 << 40);
        cache.unwrap().used_bytes()
    }

    fn take_fetched_mib(&self) -> u64 {
        let requests = self.source.take_requests();
        requests.iter().map(|&(_, len)| len).sum::<u64>() >> 20
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_larger_than_the_cache_leaves_the_rest_and_is_fetched_once() {
    let lens = [&[MIB / 4; 12][..], &[16 * MIB]].concat();
    let bench = SmallCache::new(8 * MIB, &lens);
    for small in 0..12 {
        bench.read(small).await;
    }
    bench.source.take_requests();
    assert_eq!(bench.segments.backend().cache.short_at(), None);

    bench.read(12).await;

    let kept = (0..12).filter(|&part| bench.parts[part].is_cached());
    assert_eq!(kept.count(), 12);
    let fetched = bench.take_fetched_mib();
    assert!((16..18).contains(&fetched), "{fetched} MiB");
    assert!(bench.bytes_on_disk() <= 8 << 20);
    assert!(bench.segments.backend().cache.short_at().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_do_not_fit_together_are_read_at_once() {
    let bench = Arc::new(SmallCache::new(8 * MIB, &[5 * MIB; 4]));

    let read = |part| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.read(part).await })
    };
    for reader in (0..4).map(read).collect::<Vec<_>>() {
        reader.await.unwrap();
    }

    // How many chunks are evicted just before their reader comes depends on the threads. Each file
    // twice would be 40 MiB.
    let fetched = bench.take_fetched_mib();
    assert!((20..26).contains(&fetched), "{fetched} MiB");
    assert!(bench.bytes_on_disk() <= 8 << 20);
}
