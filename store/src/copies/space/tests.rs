//! Tests of which file gets space and which copy is evicted for it.

use std::fs::File;

use cachewfs_tests::SmallDisk;

use super::*;
use crate::testing::{new_segment, noise, shelf};

fn space(directory: &Path, max_bytes: u64) -> Space {
    let at = |name: &str| directory.join(name);
    let local = Directory::open(&at("disk"), &at("tmp")).unwrap();
    Space::new(Arc::new(local), max_bytes)
}

#[test]
fn concurrent_fills_take_half_of_the_limit_and_one_alone_takes_all() {
    let directory = tempfile::tempdir().unwrap();
    let space = space(directory.path(), 100);

    assert!(space.reserve(40));
    assert!(!space.reserve(40));
    assert!(space.reserve(10));
    assert!(!space.reserve(1));
    space.release(40);
    assert!(!space.reserve(90), "beside another");
    space.release(10);
    assert!(!space.reserve(101));
    assert!(space.reserve(90));
    assert!(!space.reserve(1), "beside a long one");
}

/// Stores a copy on disk.
fn put(space: &Space, seed: u32, len: usize) -> Key {
    let segment = new_segment(&space.local.tmp, &noise(seed, len));
    let key = Key::segment(&shelf(), segment.id);
    let stored = space.local.create_segments(&shelf(), vec![segment]);
    stored.unwrap();
    space.add(&key, len as u64);
    key
}

#[test]
fn evicted_copies_are_removed_later() {
    let directory = tempfile::tempdir().unwrap();
    let space = space(directory.path(), 1000);
    let keys: Vec<_> = (0..3).map(|seed| put(&space, seed, 300)).collect();
    let there = || keys.iter().map(|key| space.local.path(key).exists());

    assert!(space.reserve(500));
    assert!(there().all(|is_there| is_there));
    assert_eq!(space.bytes(), 300);

    space.remove_evicted();
    assert!(there().eq([false, false, true]));
}

#[test]
fn a_copy_that_is_removed_with_its_predecessor_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let space = space(directory.path(), 1000);
    let key = put(&space, 1, 300);
    assert!(space.reserve(900));
    space.release(900);
    put(&space, 1, 300);

    space.remove_evicted();

    assert!(!space.local.path(&key).exists());
    assert_eq!(space.bytes(), 0);
}

const MIB: usize = 1 << 20;

#[test]
fn copies_make_way_for_other_files_on_the_disk() {
    let Some(disk) = SmallDisk::mount("40m") else {
        return;
    };
    let space = space(disk.path(), 1 << 40);
    let keys: Vec<_> = (0..5).map(|seed| put(&space, seed, 6 * MIB)).collect();
    let count = || keys.iter().filter(|key| space.local.path(key).exists());

    space.look();
    assert_eq!(count().count(), 5, "2 of 10 MiB are kept free");
    let other = File::create(disk.path().join("other")).unwrap();
    rustix::fs::fallocate(&other, rustix::fs::FallocateFlags::empty(), 0, 9 << 20).unwrap();
    space.look();

    assert_eq!(count().count(), 4);
    assert!(!space.local.path(&keys[0]).exists());
}

#[test]
fn reserved_space_leaves_a_share_of_the_disk_free() {
    let Some(disk) = SmallDisk::mount("40m") else {
        return;
    };
    let space = space(disk.path(), 1 << 40);
    let mib = |count: usize| (count * MIB) as u64;
    for seed in 0..5 {
        put(&space, seed, 6 * MIB);
    }

    assert!(!space.reserve(mib(39)));
    assert_eq!(
        space.bytes(),
        mib(30),
        "a file that gets no space evicts nothing"
    );
    assert!(space.reserve(mib(20)));
    assert_eq!(space.bytes(), mib(18));
    assert!(
        !space.reserve(mib(19)),
        "a part of the reserved file may be on the disk already"
    );
    space.remove_evicted();
    assert!(!space.reserve(mib(19)));
    assert!(space.reserve(mib(17)));
}

#[test]
fn make_room_evicts_half_or_all_copies_on_the_same_disk() {
    let Some(disk) = SmallDisk::mount("40m") else {
        return;
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let space = space(disk.path(), 1 << 40);
    let keys: Vec<_> = (0..4).map(|seed| put(&space, seed, MIB)).collect();
    let there = || keys.iter().map(|key| space.local.path(key).exists());

    assert!(!space.make_room(elsewhere.path(), true));
    assert!(there().all(|is_there| is_there));
    assert!(space.make_room(disk.path(), false));
    assert!(there().eq([false, false, true, true]));
    assert!(space.make_room(disk.path(), true));
    assert!(there().eq([false; 4]));
    assert!(!space.make_room(disk.path(), true));
}

#[test]
fn concurrent_reservations_get_at_most_half() {
    let directory = tempfile::tempdir().unwrap();
    let space = space(directory.path(), 1000);

    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    if space.reserve(130) {
                        assert!(space.copies.lock().pending <= 500);
                        space.release(130);
                    }
                }
            });
        }
    });

    assert_eq!(space.copies.lock().pending, 0);
}
