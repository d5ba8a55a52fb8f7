//! The contract of a tier that fails now and then: a call fails or was carried out, and no object
//! is half there.

use std::path::Path;

use super::retrying::{Retrying, copies, is_failure};
use super::{id, repo, snapshot};
use crate::testing::{new_segment, noise, now};
use crate::{Key, Tiers, Written};

/// How often each call is made: some of the calls fail, before or after they are carried out.
const ROUNDS: u8 = 16;

pub(super) fn check(tiers: &Tiers, tmp: &Path) {
    a_failed_write_was_carried_out_or_was_not(tiers);
    a_failed_upload_leaves_a_whole_segment_or_none(tiers, tmp);
    a_failed_delete_leaves_the_object_whole_or_gone(tiers);
    a_successful_read_has_all_bytes(tiers, tmp);
}

/// Returns the bytes of an object in the authoritative tier, with retries.
fn present(tiers: &Tiers, key: &Key) -> Option<Vec<u8>> {
    let read = Retrying::new(tiers).authoritative().read_whole(key);
    read.unwrap().map(|whole| whole.bytes)
}

fn a_failed_write_was_carried_out_or_was_not(tiers: &Tiers) {
    let repo = repo("failing/write");
    let pointer = Key::pointer(&repo);
    for round in 0..ROUNDS {
        let new = noise(round.into(), 20_000);
        let manifest = Key::manifest(&repo, snapshot(round));
        let created = now(tiers.nearest().create(&manifest, &new));
        let present_now = present(tiers, &manifest);
        if is_failure(&created) {
            assert!(present_now.is_none_or(|bytes| bytes == new));
        } else {
            assert_eq!(created.unwrap(), Written::New);
            assert!(present_now.unwrap() == new);
        }

        let before = Retrying::new(tiers)
            .authoritative()
            .read_whole(&pointer)
            .unwrap();
        let version = before.as_ref().map(|before| &before.version);
        let swapped = now(tiers.nearest().swap(&pointer, version, &new));
        let present_now = present(tiers, &pointer);
        if is_failure(&swapped) {
            let before = before.map(|before| before.bytes);
            assert!(present_now == before || present_now.unwrap() == new);
        } else {
            assert_eq!(swapped.unwrap(), Written::New);
            assert!(present_now.unwrap() == new);
        }
    }
}

fn a_failed_upload_leaves_a_whole_segment_or_none(tiers: &Tiers, tmp: &Path) {
    let repo = repo("failing/segment");
    let retrying = Retrying::new(tiers);
    for round in 0..ROUNDS {
        let contents = [1, 2].map(|n| noise(100 * n + u32::from(round), 20_000));
        let new = contents.each_ref().map(|content| new_segment(tmp, content));
        let stored = now(tiers.nearest().create_segments(&repo, copies(&new)));

        let is_stored = !is_failure(&stored);
        for content in contents {
            let key = Key::segment(&repo, id(&content));
            let stat = retrying.stat(&key).unwrap();
            assert!(stat.is_some() || !is_stored);
            if let Some(stat) = stat {
                assert_eq!(stat.len, 20_000);
                let mut bytes = vec![0; 20_000];
                retrying.read_at(&key, 0, &mut bytes).unwrap();
                assert!(bytes == content);
            }
        }
    }
}

fn a_failed_delete_leaves_the_object_whole_or_gone(tiers: &Tiers) {
    let repo = repo("failing/delete");
    let retrying = Retrying::new(tiers);
    let content = noise(1, 20_000);
    for round in 0..ROUNDS {
        let keys = [1, 2].map(|n| Key::manifest(&repo, snapshot(100 * n + round)));
        for key in &keys {
            retrying.create(key, &content).unwrap();
        }
        let deleted = now(tiers.nearest().delete(&keys));
        let is_deleted = !is_failure(&deleted);
        for key in keys {
            let present = present(tiers, &key);
            assert!(present.is_none() || !is_deleted);
            assert!(present.is_none_or(|bytes| bytes == content));
        }
    }
}

fn a_successful_read_has_all_bytes(tiers: &Tiers, tmp: &Path) {
    let repo = repo("failing/read");
    let retrying = Retrying::new(tiers);
    let (content, small) = (noise(2, 300_000), noise(3, 30_000));
    let (segment, manifest) = (
        Key::segment(&repo, id(&content)),
        Key::manifest(&repo, snapshot(1)),
    );
    let new = vec![new_segment(tmp, &content)];
    retrying.create_segments(&repo, new).unwrap();
    retrying.create(&manifest, &small).unwrap();
    for round in 0..usize::from(ROUNDS) {
        let (from, len) = (round * 1000, 200_000 + round);
        let mut bytes = vec![0; len];
        let read = now(tiers.nearest().read_at(&segment, from as u64, &mut bytes));
        if !is_failure(&read) {
            read.unwrap();
            assert!(bytes == content[from..from + len]);
        }
        let mut bytes = vec![0; len];
        if tiers.read_now(&segment, from as u64, &mut bytes) {
            assert!(bytes == content[from..from + len]);
        }
        let read = now(tiers.nearest().read_whole(&manifest));
        if !is_failure(&read) {
            assert!(read.unwrap().unwrap().bytes == small);
        }
    }
}
