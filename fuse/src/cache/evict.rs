//! Chooses the segments that a full cache evicts.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use cachewfs_format::{Digest, SegmentId};

/// A segment in the cache's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CachedSegment {
    pub(super) id: SegmentId,
    /// Bytes of disk that the data file and the meta file take together.
    pub(super) bytes: u64,
    pub(super) used_at: SystemTime,
}

/// Lists the segments in the cache's directory.
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
                continue;
            };
            // Another mount that shares the cache may have evicted the segment meanwhile.
            let Ok(metadata) = path.metadata() else {
                continue;
            };
            let segment = found.entry(id).or_insert(CachedSegment {
                id,
                bytes: 0,
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

/// Returns the segments to evict, least recently used first, so that the rest takes at most
/// `max_bytes`.
///
/// Spared segments count towards the bytes in use but are never chosen. So the rest may take more.
pub(super) fn choose(
    mut segments: Vec<CachedSegment>,
    max_bytes: u64,
    spared: &HashSet<SegmentId>,
) -> Vec<CachedSegment> {
    let mut used: u64 = segments.iter().map(|segment| segment.bytes).sum();
    segments.retain(|segment| !spared.contains(&segment.id));
    // The id breaks ties, so that mounts that share the cache choose the same segments.
    segments.sort_by_key(|segment| (segment.used_at, segment.id));
    let mut victims = Vec::new();
    for segment in segments {
        if used <= max_bytes {
            break;
        }
        used = used.saturating_sub(segment.bytes);
        victims.push(segment);
    }
    victims
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
            used_at,
        }
    }

    #[test]
    fn the_least_recently_used_are_evicted_first_and_no_more_than_needed() {
        let (old, middle, new) = (
            segment("a", 10, 9),
            segment("b", 10, 5),
            segment("c", 10, 1),
        );

        let victims = choose(vec![new, old.clone(), middle], 20, &HashSet::new());

        assert_eq!(victims, [old]);
    }

    #[test]
    fn the_first_groups_that_fit_are_spared() {
        let segments = ["a", "b", "c", "d"].map(|name| segment(name, 10, 1));
        let [a, b, c, d] = segments.each_ref().map(|segment| segment.id);

        let spared = spare(&segments, 30, [vec![a, b], vec![b, c, d], vec![b, c]]);

        assert_eq!(spared, HashSet::from([a, b, c]));
    }

    #[test]
    fn pinned_segments_stay_even_if_the_cache_stays_over_its_limit() {
        let (pinned, other) = (segment("a", 100, 9), segment("b", 10, 1));

        let victims = choose(
            vec![pinned.clone(), other.clone()],
            20,
            &HashSet::from([pinned.id]),
        );

        assert_eq!(victims, [other]);
    }
}
