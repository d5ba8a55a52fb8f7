//! Fetching many small segments in few requests.

use std::ops::Range;
use std::sync::Arc;

use cachewfs_format::Error as FormatError;

use super::{ReadError, Segment, SegmentLocation, transfer};
use crate::traffic::Purpose;

/// At most this many bytes are fetched by one request.
const MAX_GROUP_LEN: u64 = 8 << 20;
/// At most this many unneeded bytes are fetched between two segments to save a second request.
/// Fetching them takes about as long as a round trip.
const MAX_GAP: u64 = 128 << 10;

/// Fetches the missing chunks of `segments`, which are sorted as in their archive. Small segments
/// that lie close together share a request.
pub(crate) async fn fetch_whole(
    segments: &[Arc<Segment>],
    purpose: Purpose,
) -> Result<(), ReadError> {
    let mut missing = Vec::new();
    for segment in segments {
        if !segment.is_fetched_whole() {
            segment.fetch(0..segment.len(), purpose).await?;
        } else if !segment.is_cached() {
            missing.push(Member {
                segment,
                place: segment.location(),
            });
        }
    }
    // A segment that snapshots share may have been moved to another one's archive.
    for archive in missing.chunk_by(|one, other| one.place.path == other.place.path) {
        for group in groups(archive.iter().map(Member::range), MAX_GAP, MAX_GROUP_LEN) {
            fetch_group(archive.get(group).unwrap_or_default(), purpose).await?;
        }
    }
    Ok(())
}

/// A segment to fetch, and the place that it is fetched from.
struct Member<'a> {
    segment: &'a Segment,
    /// Read once: a catch-up may move the segment to another archive at any moment, and all offsets
    /// of a group must be offsets in one archive.
    place: SegmentLocation,
}

impl Member<'_> {
    /// Returns the range of the segment in its archive, in bytes.
    fn range(&self) -> Range<u64> {
        let start = self.place.offset;
        start..start.saturating_add(self.segment.record().stored_len)
    }
}

/// Fetches the segments of `group`, which are neighbours in one archive, with one request.
async fn fetch_group(group: &[Member<'_>], purpose: Purpose) -> Result<(), ReadError> {
    let (Some(first), Some(last)) = (group.first(), group.last()) else {
        return Ok(());
    };
    // The archive's byte at `start` is the first byte of the answer.
    let start = first.range().start;
    let len = last.range().end.saturating_sub(start);
    let place = Some(&first.place);
    transfer::fetch_verified_from(first.segment, place, 0..len, purpose, |bytes| {
        for member in group {
            let range = member.range();
            let position =
                |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
            if position(range.end) > bytes.len() {
                return Err(FormatError::Truncated { section: "segment" });
            }
            let stored = bytes.slice(position(range.start)..position(range.end));
            member.segment.accept_whole(&stored)?;
        }
        Ok(())
    })
    .await
}

/// Groups neighbouring ranges, which are sorted by start. In a group, gaps are at most `max_gap`
/// long, and the whole group is at most `max_len` long unless it is a single range.
fn groups(
    ranges: impl Iterator<Item = Range<u64>>,
    max_gap: u64,
    max_len: u64,
) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut covered = 0..0;
    for (index, range) in ranges.enumerate() {
        let is_close = range.start >= covered.end && range.start - covered.end <= max_gap;
        let fits = range.end.saturating_sub(covered.start) <= max_len;
        match groups.last_mut() {
            Some(group) if is_close && fits => group.end = index + 1,
            _ => {
                groups.push(index..index + 1);
                covered.start = range.start;
            }
        }
        covered.end = range.end;
    }
    groups
}

impl Segment {
    /// Returns whether all chunks are in the cache. The first call reads them from the disk, to
    /// compare each with its checksum.
    pub(crate) fn is_cached(&self) -> bool {
        let loaded = self.loaded_table().cloned();
        let Some(table) =
            loaded.or_else(|| self.backend.cache.table(self.record().id).map(Arc::new))
        else {
            return false;
        };
        let Some(file) = self.file(&table) else {
            return false;
        };
        (0..table.chunks().len()).all(|index| {
            table
                .content_range(index)
                .is_some_and(|content| file.is_ready(index, &content))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_request_up_to_the_limits_of_a_group() {
        let ranges = [0..10, 10..20, 25..30, 100..110, 110..200];

        let found = groups(ranges.into_iter(), 5, 50);

        assert_eq!(found, [0..3, 3..4, 4..5]);
    }
}
