//! Chooses the segments that a full cache evicts.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use cachewfs_format::{Digest, SegmentId};

use super::staged;

/// A segment in the cache's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CachedSegment {
    pub(super) id: SegmentId,
    /// Bytes of disk that the data file and the meta file take together.
    pub(super) bytes: u64,
    /// Bytes of its content, cached or not.
    pub(super) len: u64,
    pub(super) used_at: SystemTime,
}

/// Lists the segments in the cache's directory. Removes temporary files that killed processes left.
pub(super) fn scan(root: &Path) -> io::Result<Vec<CachedSegment>> {
    let mut found: HashMap<SegmentId, CachedSegment> = HashMap::new();
    for shard in fs::read_dir(root)? {
        let shard = shard?.path();
        if !shard.is_dir() {
            continue;
        }
        for file in fs::read_dir(&shard)? {
            let path = file?.path();
            let Some(id) = segment_id(&path) else {
                staged::remove_left(&path);
                continue;
            };
            // Another mount that shares the cache may have evicted the segment meanwhile.
            let Ok(metadata) = path.metadata() else {
                continue;
            };
            let segment = found.entry(id).or_insert(CachedSegment {
                id,
                bytes: 0,
                len: 0,
                // A process that ends while it evicts leaves a data file without a meta file. No
                // reader can use it, so it goes before all others.
                used_at: SystemTime::UNIX_EPOCH,
            });
            // Blocks, not lengths: data files are sparse, and a few chunks of a long file take
            // little.
            segment.bytes += metadata.blocks() * 512;
            if path
                .extension()
                .is_some_and(|extension| extension == "meta")
            {
                segment.used_at = metadata.modified()?;
            } else {
                // A data file is as long as the content from the start.
                segment.len = metadata.len();
            }
        }
    }
    Ok(found.into_values().collect())
}

/// Returns the segment whose meta file or data file is at `path`, or `None` for other files.
fn segment_id(path: &Path) -> Option<SegmentId> {
    if path.extension()? != "meta" && path.extension()? != "data" {
        return None;
    }
    Digest::parse(path.file_stem()?.to_str()?)
        .ok()
        .map(SegmentId)
}

/// Returns the segments of the first groups that together take at most `max_bytes`.
pub(super) fn spare(
    segments: &[CachedSegment],
    max_bytes: u64,
    groups: impl IntoIterator<Item = Vec<SegmentId>>,
) -> HashSet<SegmentId> {
    let sizes: HashMap<_, _> = segments
        .iter()
        .map(|segment| (segment.id, segment.bytes))
        .collect();
    let mut spared = HashSet::new();
    let mut room = max_bytes;
    for group in groups {
        let new: HashSet<_> = group
            .into_iter()
            .filter(|id| !spared.contains(id))
            .collect();
        let bytes = new.iter().filter_map(|id| sizes.get(id)).sum();
        // A group is of use only as a whole. A later one may be smaller.
        if let Some(rest) = room.checked_sub(bytes) {
            room = rest;
            spared.extend(new);
        }
    }
    spared
}

/// Returns the segments to evict from a cache that exceeds its limit of `max_bytes`.
///
/// These are the least recently used ones. Spared segments are never chosen: the others share the
/// bytes that those leave, and nine tenths of these bytes stay in use.
pub(super) fn choose(
    mut segments: Vec<CachedSegment>,
    max_bytes: u64,
    spared: &HashSet<SegmentId>,
) -> Vec<CachedSegment> {
    let all_bytes = total(&segments);
    segments.retain(|segment| !spared.contains(&segment.id));
    let spared_bytes = all_bytes - total(&segments);
    // Nine tenths, not all: otherwise each stored chunk would cause another scan of all files. And
    // nine tenths of what the pins leave: if pins took more than nine tenths of the limit, each
    // eviction would take everything else.
    let room = max_bytes.saturating_sub(spared_bytes) / 10 * 9;
    // The id breaks ties, so that mounts that share the cache choose the same segments.
    segments.sort_by_key(|segment| (segment.used_at, segment.id));
    // The cache never has all of a segment that is longer than the room. A program that reads it
    // from start to end would push out everything else. So such segments push out each other.
    let (long, others): (Vec<_>, _) = segments.into_iter().partition(|segment| segment.len > room);
    let (mut victims, mut rest) = split_oldest(long, room / 2);
    rest.extend(others);
    rest.sort_by_key(|segment| (segment.used_at, segment.id));
    victims.extend(split_oldest(rest, room).0);
    victims
}

/// Splits `segments`, which are sorted by their last use, before the first one from which on they
/// take at most `max_bytes`.
fn split_oldest(
    mut segments: Vec<CachedSegment>,
    max_bytes: u64,
) -> (Vec<CachedSegment>, Vec<CachedSegment>) {
    let mut used = total(&segments);
    let oldest = segments.iter().take_while(|segment| {
        let is_over = used > max_bytes;
        used = used.saturating_sub(segment.bytes);
        is_over
    });
    let rest = segments.split_off(oldest.count());
    (segments, rest)
}

/// Returns the bytes of disk that segments take together.
pub(super) fn total(segments: &[CachedSegment]) -> u64 {
    segments.iter().map(|segment| segment.bytes).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn segment(name: &str, bytes: u64, age: u64) -> CachedSegment {
        let used_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 - age);
        CachedSegment {
            id: SegmentId(Digest::of(name.as_bytes())),
            bytes,
            len: bytes,
            used_at,
        }
    }

    #[test]
    fn the_least_recently_used_are_evicted_first_and_no_more_than_needed() {
        let (old, middle, new) = (
            segment("a", 100, 9),
            segment("b", 100, 5),
            segment("c", 100, 1),
        );

        let victims = choose(vec![new, old.clone(), middle], 250, &HashSet::new());

        assert_eq!(victims, [old]);
    }

    #[test]
    fn segments_longer_than_the_cache_share_half_of_it() {
        let small: Vec<_> = (0..5)
            .map(|number| segment(&number.to_string(), 10, 100 + number))
            .collect();
        let long = |name, bytes, age| CachedSegment {
            len: 1000,
            ..segment(name, bytes, age)
        };
        // The room is 90. Among the long ones, the older one goes; one alone goes only if it has
        // more than 45.
        for (older, newer, expected) in [(30, 30, "older"), (0, 51, "newer"), (0, 44, "small")] {
            let mut segments = small.clone();
            segments.extend([long("older", older, 9), long("newer", newer, 1)]);

            let victims = choose(segments, 100, &HashSet::new());

            let expected = match expected {
                "small" => vec![segment("4", 10, 104)],
                name => vec![long(
                    name,
                    older.max(newer),
                    if name == "older" { 9 } else { 1 },
                )],
            };
            let victims: Vec<_> = victims.into_iter().filter(|one| one.bytes > 0).collect();
            assert_eq!(victims, expected);
        }
    }

    #[test]
    fn the_first_groups_that_fit_are_spared() {
        let segments = ["a", "b", "c", "d"].map(|name| segment(name, 10, 1));
        let [a, b, c, d] = segments.each_ref().map(|segment| segment.id);

        let spared = spare(&segments, 30, [vec![a, b], vec![b, c, d], vec![b, c]]);

        assert_eq!(spared, HashSet::from([a, b, c]));
    }

    #[test]
    fn pinned_segments_stay_and_leave_some_room_to_the_newest_of_the_others() {
        let (pinned, old, new) = (
            segment("a", 960, 9),
            segment("b", 30, 5),
            segment("c", 30, 1),
        );
        let segments = vec![pinned.clone(), old.clone(), new.clone()];
        let spared = HashSet::from([pinned.id]);

        // Once the pins take less than the limit, and once more.
        for (max_bytes, expected) in [(1000, vec![old.clone()]), (900, vec![old, new])] {
            assert_eq!(choose(segments.clone(), max_bytes, &spared), expected);
        }
    }
}
