//! Fetching many small segments in few requests.

use std::ops::Range;
use std::sync::Arc;

use cachewfs_format::Error as FormatError;

use super::{ReadError, Segment, transfer};
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
            missing.push(segment);
        }
    }
    for group in groups(
        missing.iter().map(|segment| range_of(segment)),
        MAX_GAP,
        MAX_GROUP_LEN,
    ) {
        fetch_group(missing.get(group).unwrap_or_default(), purpose).await?;
    }
    Ok(())
}

/// Returns the range of a segment in its archive, in bytes.
fn range_of(segment: &Segment) -> Range<u64> {
    let start = segment.location().offset;
    start..start.saturating_add(segment.record().stored_len)
}

async fn fetch_group(group: &[&Arc<Segment>], purpose: Purpose) -> Result<(), ReadError> {
    let (Some(first), Some(last)) = (group.first(), group.last()) else {
        return Ok(());
    };
    // The archive's byte at `start` is the first byte of the answer.
    let start = range_of(first).start;
    let len = range_of(last).end.saturating_sub(start);
    transfer::fetch_verified(first, 0..len, purpose, |bytes| {
        for segment in group {
            let range = range_of(segment);
            let position =
                |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
            if range.start < start || position(range.end) > bytes.len() {
                // A catch-up has moved the segments to another archive since the request was
                // planned. Slices of the answer would be other bytes.
                return Err(FormatError::Truncated { section: "segment" });
            }
            segment.accept_whole(&bytes.slice(position(range.start)..position(range.end)))?;
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
