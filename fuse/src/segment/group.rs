//! Fetching many small segments in few requests.
//!
//! Two archives may share a segment: those of a repository and its fork, or of two snapshots. Then
//! the segment has an offset in each, and [`Segment::location`] names the archive that was loaded
//! last. So a group is planned from locations that are read once, it lies in one archive, and its
//! request goes to that archive.

use std::ops::Range;
use std::sync::Arc;

use cachewfs_format::Error as FormatError;

use super::loaded::WholeClaim;
use super::{ReadError, Segment, SegmentLocation, transfer};
use crate::traffic::Purpose;

/// At most this many bytes are fetched by one request.
const MAX_GROUP_LEN: u64 = 8 << 20;
/// At most this many unneeded bytes are fetched between two segments to save a second request.
/// Fetching them takes about as long as a round trip.
const MAX_GAP: u64 = 128 << 10;

/// Fetches the missing chunks of `segments`. Small segments that lie close together in an archive
/// share a request.
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
    while !missing.is_empty() {
        let mut planned = Vec::new();
        let mut claimed_by_others = Vec::new();
        for segment in missing {
            match segment.claim_whole() {
                Some(claim) => planned.push(Member::new(segment, claim)),
                None => claimed_by_others.push(segment),
            }
        }
        fetch_planned(planned, purpose).await?;
        // Waits only now, without a claim: two callers that wait for each other's claims would
        // wait for ever.
        missing = Vec::new();
        for segment in claimed_by_others {
            segment.until_idle().await;
            if segment.is_cached() {
                continue;
            }
            if let Some(failure) = segment.state.lock().failures.of_table() {
                return Err(failure);
            }
            // The other caller gave up, for example because its client has gone.
            missing.push(segment);
        }
    }
    Ok(())
}

/// A segment of a group, and the location from which the group is fetched.
struct Member<'a> {
    segment: &'a Arc<Segment>,
    location: SegmentLocation,
    claim: WholeClaim<'a>,
}

impl<'a> Member<'a> {
    fn new(segment: &'a Arc<Segment>, claim: WholeClaim<'a>) -> Self {
        Self {
            segment,
            location: segment.location(),
            claim,
        }
    }

    /// Returns the range of the segment in its archive, in bytes.
    fn range(&self) -> Range<u64> {
        let start = self.location.offset;
        start..start.saturating_add(self.segment.record().stored_len)
    }

    fn archive(&self) -> (&str, &str) {
        (self.location.repo.as_str(), &self.location.path)
    }
}

/// Fetches segments that the caller has claimed, group by group.
async fn fetch_planned(mut members: Vec<Member<'_>>, purpose: Purpose) -> Result<(), ReadError> {
    let place = |member: &Member<'_>| {
        let (repo, path) = member.archive();
        (repo.to_owned(), path.to_owned(), member.location.offset)
    };
    members.sort_by_cached_key(place);
    for archive in members.chunk_by(|one, other| one.archive() == other.archive()) {
        for group in groups(archive.iter().map(Member::range), MAX_GAP, MAX_GROUP_LEN) {
            let group = archive.get(group).unwrap_or_default();
            if let Err(error) = fetch_group(group, purpose).await {
                for member in group {
                    member.claim.fail(&error);
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

async fn fetch_group(group: &[Member<'_>], purpose: Purpose) -> Result<(), ReadError> {
    let (Some(first), Some(last)) = (group.first(), group.last()) else {
        return Ok(());
    };
    // The archive's byte at `start` is the first byte of the answer.
    let start = first.range().start;
    let len = last.range().end.saturating_sub(start);
    let place = Some(&first.location);
    transfer::fetch_verified_from(first.segment, place, 0..len, purpose, |bytes| {
        for member in group {
            let range = member.range();
            let position =
                |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
            if position(range.end) > bytes.len() {
                return Err(FormatError::Truncated { section: "segment" });
            }
            member
                .segment
                .accept_whole(&bytes.slice(position(range.start)..position(range.end)))?;
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
