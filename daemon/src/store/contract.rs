//! What every tier, and every wrapper of one, must do.
//!
//! Each claim has repositories of its own, so they may run in one tier, one after the other.

use std::fs::File;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, SystemTime};

use cachewfs_format::{Digest, ObjectId, RepoName, SegmentId, SnapshotId};

use super::TierError;
use super::key::{Key, Object, Part, Shelf};
use super::testing::new_segment;
use super::tier::{Tier, Version, Written};

/// Rounds of a race: a server may take a second to tell all losers.
const ROUNDS: u8 = 3;
/// So many race in each round.
const RACERS: usize = 12;

/// Checks all claims; new segments are written to `tmp` first.
pub(super) fn keeps_the_contract(tier: &dyn Tier, tmp: &Path) {
    an_object_is_created_once(tier);
    a_swap_takes_what_is_expected(tier);
    segments_are_stored_once(tier, tmp);
    ranges_are_read_exactly(tier, tmp);
    what_is_not_there_is_said_to_be_missing(tier);
    a_part_of_one_repository_is_listed(tier, tmp);
    repositories_below_a_repository_do_not_collide_with_it(tier, tmp);
    one_of_those_who_create_wins(tier);
    one_of_those_who_swap_wins(tier);
    shelves_of_a_repository_are_apart(tier, tmp);
    what_is_deleted_is_gone(tier, tmp);
}

fn repo(name: &str) -> Shelf {
    Shelf::of_snapshots(&RepoName::parse(&format!("example.com/{name}")).unwrap())
}

fn snapshot(byte: u8) -> SnapshotId {
    SnapshotId::first(ObjectId::from_bytes(&[byte; 20]).unwrap())
}

fn id(bytes: &[u8]) -> SegmentId {
    SegmentId(Digest::of(bytes))
}

fn version(tier: &dyn Tier, key: &Key) -> Version {
    tier.read_whole(key).unwrap().unwrap().version
}

fn bytes(tier: &dyn Tier, key: &Key) -> Vec<u8> {
    tier.read_whole(key).unwrap().unwrap().bytes
}

fn an_object_is_created_once(tier: &dyn Tier) {
    let key = Key::manifest(&repo("create"), snapshot(1));

    assert_eq!(tier.create(&key, b"first").unwrap(), Written::New);
    assert_eq!(tier.create(&key, b"second").unwrap(), Written::TooLate);

    assert_eq!(bytes(tier, &key), b"first");
}

fn a_swap_takes_what_is_expected(tier: &dyn Tier) {
    let key = Key::pointer(&repo("swap"));
    let nothing = Version("nothing".to_owned());

    assert_eq!(
        tier.swap(&key, Some(&nothing), b"0").unwrap(),
        Written::TooLate
    );
    assert!(tier.read_whole(&key).unwrap().is_none());
    assert_eq!(tier.swap(&key, None, b"1").unwrap(), Written::New);
    let first = version(tier, &key);
    assert_eq!(tier.swap(&key, None, b"2").unwrap(), Written::TooLate);
    assert_eq!(tier.swap(&key, Some(&first), b"2").unwrap(), Written::New);
    assert_eq!(
        tier.swap(&key, Some(&first), b"3").unwrap(),
        Written::TooLate
    );

    assert_eq!(bytes(tier, &key), b"2");
}

fn segments_are_stored_once(tier: &dyn Tier, tmp: &Path) {
    let repo = repo("segments");
    // More than are made durable one by one, and than are sent at once.
    let contents: Vec<_> = (0..40).map(|n| format!("segment {n}")).collect();
    let new = |contents: &[String]| {
        let new = contents.iter();
        new.map(|content| new_segment(tmp, content.as_bytes()))
            .collect()
    };
    let len: usize = contents.iter().map(String::len).sum();

    let few = new(&contents[..3]);
    let few_len: usize = contents[..3].iter().map(String::len).sum();
    assert_eq!(tier.create_segments(&repo, few).unwrap(), few_len as u64);
    let all = tier.create_segments(&repo, new(&contents)).unwrap();
    assert_eq!(all, (len - few_len) as u64);
    assert_eq!(tier.create_segments(&repo, new(&contents)).unwrap(), 0);
    assert_eq!(tier.create_segments(&repo, Vec::new()).unwrap(), 0);

    for content in contents {
        let mut read = vec![0; content.len()];
        let key = Key::segment(&repo, id(content.as_bytes()));
        tier.read_at(&key, 0, &mut read).unwrap();
        assert_eq!(read, content.as_bytes());
    }
}

fn ranges_are_read_exactly(tier: &dyn Tier, tmp: &Path) {
    let repo = repo("ranges");
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let segment = new_segment(tmp, &content);
    let key = Key::segment(&repo, segment.id);
    tier.create_segments(&repo, vec![segment]).unwrap();
    let read = |offset: usize, len: usize| {
        let mut read = vec![0; len];
        let outcome = tier.read_at(&key, offset as u64, &mut read);
        outcome.map(|()| read)
    };

    let len = content.len();
    for (offset, part) in [(0, len), (0, 1), (7, 70_000), (len - 1, 1), (5, 0)] {
        let wanted = &content[offset..offset + part];
        assert!(read(offset, part).unwrap() == wanted, "{part} at {offset}");
    }
    for (offset, part) in [(0, len + 1), (len - 1, 2), (len, 1), (len + 5, 5)] {
        let error = read(offset, part).unwrap_err();
        assert!(
            matches!(&error, TierError::Truncated { key: of } if **of == key),
            "{part} at {offset}: {error:?}"
        );
    }
}

fn what_is_not_there_is_said_to_be_missing(tier: &dyn Tier) {
    let repo = repo("missing");
    let key = Key::segment(&repo, id(b"missing"));

    let error = tier.read_at(&key, 0, &mut [0]).unwrap_err();
    assert!(
        matches!(&error, TierError::NotFound { key: of } if **of == key),
        "{error:?}"
    );
    assert!(tier.read_whole(&Key::pointer(&repo)).unwrap().is_none());
    assert!(tier.stat(&key).unwrap().is_none());
    assert_eq!(tier.list(&repo, Part::Segments).unwrap(), []);
}

fn a_part_of_one_repository_is_listed(tier: &dyn Tier, tmp: &Path) {
    let (repo, other) = (repo("list"), repo("list/other"));
    let before = SystemTime::now() - Duration::from_mins(1);
    tier.create(&Key::manifest(&repo, snapshot(1)), b"one")
        .unwrap();
    tier.create(&Key::manifest(&repo, snapshot(2)), b"two!")
        .unwrap();
    tier.create(&Key::manifest(&other, snapshot(3)), b"three")
        .unwrap();
    let segment = new_segment(tmp, b"segment");
    tier.create_segments(&repo, vec![segment]).unwrap();

    let mut listed = tier.list(&repo, Part::Manifests).unwrap();
    listed.sort_by_key(|listed| listed.object);
    let objects: Vec<_> = listed.iter().map(|of| (of.object, of.stat.len)).collect();
    assert_eq!(
        objects,
        [
            (Object::Manifest(snapshot(1)), 3),
            (Object::Manifest(snapshot(2)), 4)
        ]
    );
    assert!(listed.iter().all(|listed| listed.stat.stored_at > before));
    let segments = tier.list(&repo, Part::Segments).unwrap();
    assert_eq!(segments.len(), 1);
    assert_eq!(segments[0].object, Object::Segment(id(b"segment")));
    let key = Key::segment(&repo, id(b"segment"));
    assert_eq!(tier.stat(&key).unwrap().unwrap().len, 7);
}

fn repositories_below_a_repository_do_not_collide_with_it(tier: &dyn Tier, tmp: &Path) {
    let names = ["", "/current", "/snapshots", "/segments/x", "/current.lock"];
    let repos = names.map(|name| repo(&format!("nested{name}")));

    for repo in &repos {
        let pointer = tier.swap(&Key::pointer(repo), None, b"pointer");
        assert_eq!(pointer.unwrap(), Written::New, "{repo}");
        let segment = new_segment(tmp, b"segment");
        tier.create_segments(repo, vec![segment]).unwrap();
    }

    for repo in &repos {
        assert_eq!(bytes(tier, &Key::pointer(repo)), b"pointer");
        assert_eq!(tier.list(repo, Part::Segments).unwrap().len(), 1);
    }
}

fn shelves_of_a_repository_are_apart(tier: &dyn Tier, tmp: &Path) {
    let repo = RepoName::parse("example.com/shelves").unwrap();
    let shelves = [Shelf::of_snapshots(&repo), Shelf::of_lfs(&repo)];
    for (shelf, content) in shelves.iter().zip([&b"one"[..], b"two"]) {
        let pointer = tier.swap(&Key::pointer(shelf), None, content).unwrap();
        assert_eq!(pointer, Written::New, "{shelf}");
        let segment = new_segment(tmp, content);
        tier.create_segments(shelf, vec![segment]).unwrap();
    }

    for (shelf, content) in shelves.iter().zip([&b"one"[..], b"two"]) {
        assert_eq!(bytes(tier, &Key::pointer(shelf)), content);
        let listed = tier.list(shelf, Part::Segments).unwrap();
        let ids: Vec<_> = listed.iter().map(|listed| listed.object).collect();
        assert_eq!(ids, [Object::Segment(id(content))], "{shelf}");
    }
    let [snapshots, lfs] = &shelves;
    tier.delete_shelf(lfs).unwrap();
    assert!(tier.read_whole(&Key::pointer(lfs)).unwrap().is_none());
    assert_eq!(bytes(tier, &Key::pointer(snapshots)), b"one");
}

/// Has all begin at once; gives those that won.
fn race(write: impl Fn(usize) -> Written + Sync) -> Vec<usize> {
    let barrier = Barrier::new(RACERS);
    std::thread::scope(|scope| {
        let (write, barrier) = (&write, &barrier);
        let racers: Vec<_> = (0..RACERS)
            .map(|racer| {
                scope.spawn(move || {
                    barrier.wait();
                    (write(racer) == Written::New).then_some(racer)
                })
            })
            .collect();
        let outcomes = racers.into_iter().map(|racer| racer.join().unwrap());
        outcomes.flatten().collect()
    })
}

fn one_of_those_who_create_wins(tier: &dyn Tier) {
    for round in 0..ROUNDS {
        let key = Key::manifest(&repo("create/race"), snapshot(round));

        let winners = race(|racer| tier.create(&key, racer.to_string().as_bytes()).unwrap());

        let [winner] = winners[..] else {
            panic!("{winners:?} won");
        };
        assert_eq!(bytes(tier, &key), winner.to_string().as_bytes());
    }
}

fn one_of_those_who_swap_wins(tier: &dyn Tier) {
    let key = Key::pointer(&repo("swap/race"));
    let mut expected = None;
    for _ in 0..ROUNDS {
        let swap = |racer: usize| {
            let bytes = racer.to_string();
            tier.swap(&key, expected.as_ref(), bytes.as_bytes())
                .unwrap()
        };
        let winners = race(swap);

        let [winner] = winners[..] else {
            panic!("{winners:?} won");
        };
        assert_eq!(bytes(tier, &key), winner.to_string().as_bytes());
        expected = Some(version(tier, &key));
        // So that the next round's winner can't store the same again.
        let other = tier.swap(&key, expected.as_ref(), b"between rounds");
        assert_eq!(other.unwrap(), Written::New);
        expected = Some(version(tier, &key));
    }
}

fn what_is_deleted_is_gone(tier: &dyn Tier, tmp: &Path) {
    let repo = repo("delete");
    let key = Key::manifest(&repo, snapshot(1));
    tier.create(&key, b"one").unwrap();
    tier.swap(&Key::pointer(&repo), None, b"pointer").unwrap();
    let segment = new_segment(tmp, b"segment");
    tier.create_segments(&repo, vec![segment]).unwrap();

    let keys: Vec<_> = (0..40)
        .map(|byte| Key::manifest(&repo, snapshot(byte)))
        .collect();
    tier.delete(&keys).unwrap();
    tier.delete(&keys).unwrap();
    assert!(tier.read_whole(&key).unwrap().is_none());
    assert_eq!(tier.create(&key, b"again").unwrap(), Written::New);
    tier.delete_shelf(&repo).unwrap();
    tier.delete_shelf(&repo).unwrap();
    assert!(tier.read_whole(&Key::pointer(&repo)).unwrap().is_none());
    assert_eq!(tier.list(&repo, Part::Manifests).unwrap(), []);
    let left = tier.list(&repo, Part::Segments).unwrap();
    let left: Vec<_> = left
        .iter()
        .map(|listed| Key::new(&repo, listed.object))
        .collect();
    tier.delete(&left).unwrap();
    assert_eq!(tier.list(&repo, Part::Segments).unwrap(), []);
}

#[test]
fn the_disk_tier_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let tmp = directory.path().join("tmp");
    let tier = super::DiskTier::create(directory.path(), &tmp).unwrap();

    keeps_the_contract(&tier, &tmp);

    assert_eq!(tmp.read_dir().unwrap().count(), 0, "nothing is left behind");
    let damaged = new_segment(&tmp, b"damaged");
    let (repo, id) = (repo("aside"), damaged.id);
    tier.create_segments(&repo, vec![damaged]).unwrap();
    tier.set_aside(&repo, id).unwrap();
    let listed = tier.list(&repo, Part::Segments).unwrap();
    assert_eq!(listed[0].object, Object::Damaged(id));
    assert!(File::open(tier.path(&Key::segment(&repo, id))).is_err());
}
