//! The contract for segments: stored once, read exactly, set aside when they are damaged.

use std::path::Path;

use tokio::runtime::Handle;

use super::retrying::Retrying;
use super::{id, repo};
use crate::testing::{new_segment, noise};
use crate::{Extent, Key, NewSegment, Object, ShelfPart, TierError};

pub(super) fn check(tier: &Retrying<'_>, tmp: &Path) {
    segments_are_stored_once(tier, tmp);
    ranges_are_read_exactly(tier, tmp);
    missing_objects_are_reported_as_missing(tier);
    fetched_segments_can_be_read(tier, tmp);
    a_damaged_segment_can_be_stored_again(tier, tmp);
}

fn segments_are_stored_once(tier: &Retrying<'_>, tmp: &Path) {
    let repo = repo("segments");
    // More than are made durable one by one, and more than are sent at the same time.
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

fn ranges_are_read_exactly(tier: &Retrying<'_>, tmp: &Path) {
    let repo = repo("ranges");
    // Longer than the parts of reads and of uploads.
    let content = noise(1, (9 << 20) + 5);
    let segment = new_segment(tmp, &content);
    let key = Key::segment(&repo, segment.id);
    tier.create_segments(&repo, vec![segment]).unwrap();
    let read = |offset: usize, len: usize| {
        let mut read = vec![0; len];
        let outcome = tier.read_at(&key, offset as u64, &mut read);
        outcome.map(|()| read)
    };

    let len = content.len();
    for (offset, part) in [
        (0, 1),
        (7, 70_000),
        ((4 << 20) - 3, 6),
        (5, 0),
        (3 << 20, 6 << 20),
        (len - 1, 1),
        (0, len),
    ] {
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

fn missing_objects_are_reported_as_missing(tier: &Retrying<'_>) {
    let repo = repo("missing");
    let key = Key::segment(&repo, id(b"missing"));

    let error = tier.read_at(&key, 0, &mut [0]).unwrap_err();
    assert!(
        matches!(&error, TierError::NotFound { key: of } if **of == key),
        "{error:?}"
    );
    assert!(tier.read_whole(&Key::pointer(&repo)).unwrap().is_none());
    assert!(tier.stat(&key).unwrap().is_none());
    assert_eq!(tier.list(&repo, ShelfPart::Segments).unwrap(), []);
}

fn read(tier: &Retrying<'_>, key: &Key, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    tier.read_at(key, 0, &mut bytes).unwrap();
    bytes
}

/// Returns the bytes that can be read without waiting.
fn read_now(tier: &Retrying<'_>, key: &Key, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    tier.read_now(key, 0, &mut bytes).then_some(bytes)
}

fn fetch_local(tier: &Retrying<'_>, key: &Key, len: usize) {
    let extent = |range| Extent {
        key: key.clone(),
        len: len as u64,
        range,
    };
    let half = len as u64 / 2;
    let wanted = [extent(0..half), extent(half..len as u64)];
    Handle::current()
        .block_on(tier.fetch_local(&wanted))
        .unwrap();
    tier.fetch_local_soon(&wanted);
}

fn fetched_segments_can_be_read(tier: &Retrying<'_>, tmp: &Path) {
    let repo = repo("fetch_local");
    let contents = [noise(7, 3000), noise(8, (4 << 20) + 3000)];
    for content in contents {
        let key = Key::segment(&repo, id(&content));
        let missing = read_now(tier, &key, 1);
        assert!(missing.is_none());
        tier.fetch_local_soon(&[]);
        let segment = new_segment(tmp, &content);
        tier.create_segments(&repo, vec![segment]).unwrap();

        fetch_local(tier, &key, content.len());

        // `read_now` may read nothing, but never other bytes.
        let now = read_now(tier, &key, content.len());
        assert!(now.is_none_or(|bytes| bytes == content));
        assert!(read(tier, &key, content.len()) == content);
        assert!(read_now(tier, &key, content.len() + 1).is_none());
    }
}

/// The damage may be in a local copy, and a copy may just be in flight. Damage may be found once
/// more then, but not for ever.
fn a_damaged_segment_can_be_stored_again(tier: &Retrying<'_>, tmp: &Path) {
    let repo = repo("damaged");
    let content = noise(9, 5000);
    let (id, len) = (id(&content), content.len());
    let key = Key::segment(&repo, id);
    tier.set_aside(&repo, id).unwrap();
    assert!(tier.stat(&key).unwrap().is_none());
    let other = new_segment(tmp, &noise(10, len));
    let damaged = NewSegment { id, ..other };
    tier.create_segments(&repo, vec![damaged]).unwrap();
    fetch_local(tier, &key, len);
    assert!(read(tier, &key, len) != content);

    tier.set_aside(&repo, id).unwrap();
    tier.set_aside(&repo, id).unwrap();
    let segment = new_segment(tmp, &content);
    tier.create_segments(&repo, vec![segment]).unwrap();
    fetch_local(tier, &key, len);

    if read(tier, &key, len) != content {
        // A copy was in flight while the segment was set aside. Its reader finds the damage, and
        // drops it. A tier without copies never comes here.
        assert!(tier.drop_copies(&key));
        fetch_local(tier, &key, len);
    }
    let now = read_now(tier, &key, len);
    assert!(now.is_none_or(|bytes| bytes == content));
    assert!(read(tier, &key, len) == content);
    assert_eq!(tier.stat(&key).unwrap().unwrap().len, len as u64);
    let listed = tier.list(&repo, ShelfPart::Segments).unwrap();
    assert!(listed.iter().any(|of| of.object == Object::Segment(id)));
}
