//! The contract for objects: created once, swapped, listed, deleted.

use std::path::Path;
use std::time::{Duration, SystemTime};

use cachewfs_format::RepoName;

use super::retrying::Retrying;
use super::{bytes, id, repo, snapshot, version};
use crate::testing::new_segment;
use crate::{Key, Object, Shelf, ShelfPart, Version, Written};

pub(super) fn check(tier: &Retrying<'_>, tmp: &Path) {
    repositories_are_listed(tier);
    an_object_is_created_once(tier);
    a_swap_checks_the_expected_version(tier);
    the_authoritative_tier_has_the_written_objects(tier);
    recent_reads_agree_with_single_reads(tier);
    a_part_of_one_repository_is_listed(tier, tmp);
    repositories_below_a_repository_do_not_collide_with_it(tier, tmp);
    shelves_of_a_repository_are_apart(tier, tmp);
    deleted_objects_are_gone(tier, tmp);
}

fn an_object_is_created_once(tier: &Retrying<'_>) {
    let key = Key::manifest(&repo("create"), snapshot(1));

    assert_eq!(tier.create(&key, b"first").unwrap(), Written::New);
    assert_eq!(tier.create(&key, b"second").unwrap(), Written::TooLate);

    assert_eq!(bytes(tier, &key), b"first");
}

fn a_swap_checks_the_expected_version(tier: &Retrying<'_>) {
    let repo = repo("swap");
    let nothing = Version::new("nothing".to_owned());
    for key in [
        Key::pointer(&repo),
        Key::lease(&repo),
        Key::deletions(&repo),
    ] {
        let swap = |expected, bytes: &[u8]| tier.swap(&key, expected, bytes).unwrap();

        assert_eq!(swap(Some(&nothing), b"0"), Written::TooLate);
        assert!(tier.read_whole(&key).unwrap().is_none());
        assert!(tier.stat(&key).unwrap().is_none());
        assert_eq!(swap(None, b"1"), Written::New);
        let first = version(tier, &key);
        assert_eq!(swap(None, b"2"), Written::TooLate);
        assert_eq!(swap(Some(&first), b"two"), Written::New);
        assert_eq!(swap(Some(&first), b"3"), Written::TooLate);

        assert_eq!(bytes(tier, &key), b"two");
        assert_eq!(tier.stat(&key).unwrap().unwrap().len, 3);
    }
}

/// Without other writers, the tier and its authoritative tier have the same objects.
fn the_authoritative_tier_has_the_written_objects(tier: &Retrying<'_>) {
    let repo = repo("authority");
    let (pointer, manifest) = (Key::pointer(&repo), Key::manifest(&repo, snapshot(1)));
    tier.swap(&pointer, None, b"pointer").unwrap();
    tier.create(&manifest, b"manifest").unwrap();

    let authoritative = tier.authoritative();
    for (key, content) in [(&pointer, &b"pointer"[..]), (&manifest, b"manifest")] {
        assert_eq!(bytes(tier, key), content);
        let len = |tier: &Retrying<'_>| tier.stat(key).unwrap().unwrap().len;
        assert_eq!(len(&authoritative), len(tier));
    }
    let listed = authoritative.list(&repo, ShelfPart::Manifests).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].object, Object::Manifest(snapshot(1)));
}

fn recent_reads_agree_with_single_reads(tier: &Retrying<'_>) {
    let keys: Vec<_> = (0..40)
        .map(|n| Key::pointer(&repo(&format!("lately/{n}"))))
        .collect();
    let content = |n: usize| n.to_string().into_bytes();
    let is_there = |n: usize| !n.is_multiple_of(3);
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| is_there(*n)) {
        tier.swap(key, None, &content(n)).unwrap();
    }

    let read = tier.read_recent(&keys);

    assert_eq!(read.len(), keys.len());
    for (n, read) in read.into_iter().enumerate() {
        let read = read.unwrap().map(|whole| whole.bytes);
        assert_eq!(read, is_there(n).then(|| content(n)));
    }
}

/// Must be the first check that lists repositories, because a listing may be half a minute old.
fn repositories_are_listed(tier: &Retrying<'_>) {
    let names = ["", "/current", "/segments/x", "/deep/er", ".org"];
    let mut repos: Vec<_> = names.map(|name| format!("listed.com/a{name}")).into();
    repos.push("another.com/b".to_owned());
    let mut repos: Vec<_> = repos
        .iter()
        .map(|name| RepoName::parse(name).unwrap())
        .collect();
    for repo in &repos {
        let pointer = Key::pointer(&Shelf::of_snapshots(repo));
        tier.swap(&pointer, None, b"pointer").unwrap();
    }

    let mut found = tier.repositories().unwrap();

    let is_of_this = |repo: &RepoName| !repo.to_string().starts_with("example.com/");
    found.retain(is_of_this);
    found.sort();
    repos.sort();
    assert_eq!(found, repos);
}

fn a_part_of_one_repository_is_listed(tier: &Retrying<'_>, tmp: &Path) {
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

    let mut listed = tier.list(&repo, ShelfPart::Manifests).unwrap();
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
    let segments = tier.list(&repo, ShelfPart::Segments).unwrap();
    assert_eq!(segments.len(), 1);
    assert_eq!(segments[0].object, Object::Segment(id(b"segment")));
    let key = Key::segment(&repo, id(b"segment"));
    assert_eq!(tier.stat(&key).unwrap().unwrap().len, 7);
}

fn repositories_below_a_repository_do_not_collide_with_it(tier: &Retrying<'_>, tmp: &Path) {
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
        assert_eq!(tier.list(repo, ShelfPart::Segments).unwrap().len(), 1);
    }
}

fn shelves_of_a_repository_are_apart(tier: &Retrying<'_>, tmp: &Path) {
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
        let listed = tier.list(shelf, ShelfPart::Segments).unwrap();
        let ids: Vec<_> = listed.iter().map(|listed| listed.object).collect();
        assert_eq!(ids, [Object::Segment(id(content))], "{shelf}");
    }
    let [snapshots, lfs] = &shelves;
    tier.delete(&[Key::pointer(lfs)]).unwrap();
    tier.delete_shelf(lfs).unwrap();
    assert!(tier.read_whole(&Key::pointer(lfs)).unwrap().is_none());
    assert_eq!(bytes(tier, &Key::pointer(snapshots)), b"one");
}

fn deleted_objects_are_gone(tier: &Retrying<'_>, tmp: &Path) {
    let repo = repo("delete");
    let key = Key::manifest(&repo, snapshot(1));
    tier.create(&key, b"one").unwrap();
    tier.swap(&Key::pointer(&repo), None, b"pointer").unwrap();
    let segment = new_segment(tmp, b"segment");
    tier.create_segments(&repo, vec![segment]).unwrap();

    let keys: Vec<_> = (0..40)
        .map(|byte| Key::manifest(&repo, snapshot(byte)))
        .collect();
    assert!(tier.stat(&key).unwrap().is_some());
    tier.delete(&keys).unwrap();
    tier.delete(&keys).unwrap();
    tier.delete(&[]).unwrap();
    assert!(tier.read_whole(&key).unwrap().is_none());
    assert!(tier.stat(&key).unwrap().is_none());
    assert_eq!(tier.create(&key, b"again").unwrap(), Written::New);
    assert_eq!(bytes(tier, &key), b"again");
    assert!(tier.stat(&key).unwrap().is_some());
    let deletions = Key::deletions(&repo);
    tier.swap(&deletions, None, b"deletions").unwrap();
    tier.delete(&[Key::pointer(&repo), key.clone()]).unwrap();
    tier.delete_shelf(&repo).unwrap();
    tier.delete_shelf(&repo).unwrap();
    assert_eq!(bytes(tier, &deletions), b"deletions");
    assert!(tier.read_whole(&Key::pointer(&repo)).unwrap().is_none());
    assert!(tier.read_whole(&key).unwrap().is_none());
    assert!(tier.stat(&key).unwrap().is_none());
    assert_eq!(tier.list(&repo, ShelfPart::Manifests).unwrap(), []);
    let left = tier.list(&repo, ShelfPart::Segments).unwrap();
    let left: Vec<_> = left
        .iter()
        .map(|listed| Key::new(&repo, listed.object))
        .collect();
    tier.delete(&left).unwrap();
    assert_eq!(tier.list(&repo, ShelfPart::Segments).unwrap(), []);
}
