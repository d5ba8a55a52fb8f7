//! Several mounts on one cache, and mounts that end while they evict.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cachewfs_format::{
    ChunkEncoding, RepoName, SegmentId, SegmentTable, SegmentWriter, encode_chunk,
};
use futures_util::FutureExt as _;
use tempfile::TempDir;

use super::Cache;
use super::evict::scan;
use super::open_files::OpenSegmentFiles;
use super::staged;

const MIB: u64 = 1 << 20;

/// Stores a segment of 1 MiB whose content follows from `seed`.
fn store(cache: &Cache, seed: u8) -> SegmentId {
    let content = vec![seed; 1 << 20];
    let (chunk, _) = encode_chunk(&content, ChunkEncoding::Raw).unwrap();
    let mut writer = SegmentWriter::default();
    writer.push_chunk(chunk);
    let (id, frame) = writer.finish().unwrap();
    let table = SegmentTable::decode(id, &frame).unwrap();
    cache.store_table(id, &frame).unwrap();
    let table_len = u32::try_from(frame.len()).unwrap();
    let file = cache.open_segment(id, &table, table_len, MIB).unwrap();
    file.store(0, 0, &content).unwrap();
    cache.count_stored(MIB);
    id
}

fn bytes_on_disk(directory: &Path) -> u64 {
    let segments = scan(&directory.join("v1")).unwrap();
    segments.iter().map(|segment| segment.bytes).sum()
}

#[test]
fn mounts_that_share_a_cache_keep_its_limit_together() {
    let directory = TempDir::new().unwrap();
    let max = 8 * MIB;
    let mounts = [(); 2].map(|()| Cache::open(directory.path(), max).unwrap());

    let mut most = 0;
    for seed in 0..40 {
        let mount = &mounts[usize::from(seed % 2)];
        store(mount, seed);
        if mount.grew().now_or_never().is_some() {
            mount.evict(&HashSet::new()).unwrap();
        }
        most = most.max(bytes_on_disk(directory.path()));
    }

    assert!((6 * MIB..=max).contains(&most), "{most}");
}

#[test]
fn a_data_file_that_lost_its_meta_file_is_evicted_first() {
    let directory = TempDir::new().unwrap();
    let cache = Cache::open(directory.path(), 5 * MIB).unwrap();
    let ids: Vec<_> = (0..6).map(|seed| store(&cache, seed)).collect();
    let orphan = ids.last().unwrap().to_string();
    let path = directory
        .path()
        .join("v1")
        .join(orphan.split_at(2).0)
        .join(&orphan);
    fs::remove_file(path.with_extension("meta")).unwrap();

    let evicted = cache.evict(&HashSet::new()).unwrap();

    assert!(evicted.contains(ids.last().unwrap()));
    assert!(!path.with_extension("data").exists());
    assert!(bytes_on_disk(directory.path()) <= 5 * MIB);
}

#[test]
fn a_clock_that_was_moved_back_does_not_get_new_segments_evicted() {
    let directory = TempDir::new().unwrap();
    let cache = Cache::open(directory.path(), 6 * MIB).unwrap();
    for seed in 0..4 {
        let id = store(&cache, seed);
        cache.touch(id, SystemTime::now() + Duration::from_hours(3));
    }
    assert!(cache.evict(&HashSet::new()).unwrap().is_empty());

    let new: Vec<_> = (4..6).map(|seed| store(&cache, seed)).collect();
    for &id in &new {
        cache.touch(id, SystemTime::now());
    }
    let evicted = cache.evict(&HashSet::new()).unwrap();

    assert!(!evicted.is_empty());
    assert!(new.iter().all(|id| !evicted.contains(id)));
}

#[test]
fn temporary_files_of_killed_mounts_are_removed_and_those_of_others_are_not() {
    let directory = TempDir::new().unwrap();
    let root = directory.path().join("v1");
    let cache = Cache::open(directory.path(), 100 * MIB).unwrap();
    let segment = store(&cache, 1).to_string();
    let hosts = ["host".to_owned()];
    cache.kept_snapshots("http://a").write_hosts(&hosts);
    let repo = RepoName::parse("host/repo").unwrap();
    cache.pin(&repo, &[]).unwrap();
    let kept = fs::read_dir(root.join("kept")).unwrap().next().unwrap();
    let directories = [
        root.join(segment.split_at(2).0),
        root.join("pins"),
        kept.unwrap().path(),
    ];
    let leave = |directory: &PathBuf, hours| {
        // As a mount leaves it that is killed before it renames the file.
        let (file, path) = staged::create(directory).unwrap().keep().unwrap();
        let age = Duration::from_hours(hours);
        file.set_modified(SystemTime::now() - age).unwrap();
        path
    };
    let old = directories.each_ref().map(|directory| leave(directory, 2));
    let young = directories.each_ref().map(|directory| leave(directory, 0));

    let restarted = Cache::open(directory.path(), 100 * MIB).unwrap();
    let kept = restarted.kept_snapshots("http://a");

    assert_eq!(old.map(|path| path.exists()), [false; 3]);
    assert_eq!(young.map(|path| path.exists()), [true; 3]);
    assert_eq!(kept.hosts().unwrap(), hosts);
    assert_eq!(restarted.pinned_repos().unwrap(), [repo]);
    assert_eq!(bytes_on_disk(directory.path()) / MIB, 1);
}

#[test]
fn only_the_files_that_were_used_last_stay_open() {
    let directory = TempDir::new().unwrap();
    let cache = Cache::open(directory.path(), 100 * MIB).unwrap();
    let open_files = OpenSegmentFiles::with_max(2);
    let open = |seed| {
        let id = store(&cache, seed);
        let table = cache.table(id).unwrap();
        let table_len = u32::try_from(table.to_frame().unwrap().len()).unwrap();
        cache.open_segment(id, &table, table_len, MIB).unwrap()
    };
    let files: Vec<_> = (0..3).map(open).collect();

    open_files.keep(&files[0]);
    open_files.keep(&files[1]);
    open_files.keep(&files[0]);
    open_files.keep(&files[2]);

    // Each file is also kept by this test, and by the cache.
    let kept = files
        .iter()
        .map(|file| std::sync::Arc::strong_count(file) - 2);
    assert_eq!(kept.collect::<Vec<_>>(), [1, 0, 1]);
}
