//! Looking for an object id in a sorted list of them, as git does.

use std::ops::Range;
use std::sync::Arc;

use futures_util::future::{join, join_all};

use super::{fetch_around, number_at, read};
use crate::segment::{ReadError, Segment};

/// Bytes of a fan-out table: 256 numbers, how many ids start with a byte up to this one.
pub(super) const FANOUT_LEN: usize = 1024;

/// A list in a file.
#[derive(Debug)]
pub(super) struct SortedIds<'a> {
    pub(super) segment: &'a Arc<Segment>,
    /// Where it starts, in bytes.
    pub(super) at: u64,
    /// Length of an id in bytes.
    pub(super) id_len: u64,
}

impl SortedIds<'_> {
    /// Where the id number `position` is, in bytes.
    pub(super) fn id_at(&self, position: u64) -> u64 {
        let offset = position.saturating_mul(self.id_len);
        self.at.saturating_add(offset)
    }

    /// Fetches what git reads to find `oid`; gives its position, if it is there.
    pub(super) async fn find(&self, fanout: &[u8], oid: &[u8]) -> Result<Option<u64>, ReadError> {
        let Some(bucket) = bucket(fanout, oid) else {
            return Ok(None);
        };
        let guess = guess(&bucket, oid.get(1..).unwrap_or_default());
        let probes = probes(bucket.clone(), guess).map(|position| self.id_at(position));
        let probes = join_all(probes.map(|at| fetch_around(self.segment, at..at)));
        // Ids are digests: among n of them, one is off by √n/2 as a rule, and by four times that
        // hardly ever.
        let off = 2 * (bucket.end - bucket.start).isqrt() + 1;
        let near = guess.saturating_sub(off).max(bucket.start)..(guess + off).min(bucket.end);
        let ids = read(self.segment, self.id_at(near.start)..self.id_at(near.end));
        let (_, ids) = join(probes, ids).await;
        let ids = ids?;
        let ids: Vec<&[u8]> = ids.chunks_exact(oid.len().max(1)).collect();
        let found = ids.binary_search(&oid).ok();
        Ok(found.map(|position| near.start + position as u64))
    }
}

/// Which ids of the list may be `oid`: those with its first byte.
fn bucket(fanout: &[u8], oid: &[u8]) -> Option<Range<u64>> {
    let byte = usize::from(*oid.first()?);
    let start = match byte.checked_sub(1) {
        Some(before) => number_at(fanout, before * 4)?,
        None => 0,
    };
    let end = number_at(fanout, byte * 4)?;
    (start < end).then_some(start..end)
}

/// Where in `positions` an id should be whose next bytes are `bytes`.
pub(super) fn guess(positions: &Range<u64>, bytes: &[u8]) -> u64 {
    let count = positions.end.saturating_sub(positions.start);
    let share = number_at(bytes, 0).unwrap_or(0);
    // Both are less than 2^32.
    positions.start + (count.saturating_mul(share) >> 32)
}

/// The positions that a binary search of `positions` for the one at `target` looks at.
fn probes(mut positions: Range<u64>, target: u64) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        if positions.start >= positions.end {
            return None;
        }
        let middle = positions.start + (positions.end - positions.start) / 2;
        match middle.cmp(&target) {
            std::cmp::Ordering::Less => positions.start = middle + 1,
            std::cmp::Ordering::Greater => positions.end = middle,
            std::cmp::Ordering::Equal => positions.end = positions.start,
        }
        Some(middle)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_search_halves_until_it_finds() {
        assert_eq!(probes(0..16, 5).collect::<Vec<_>>(), [8, 4, 6, 5]);
        assert_eq!(probes(3..3, 3).count(), 0);
    }

    #[test]
    fn an_id_is_where_its_first_bytes_say() {
        assert_eq!(guess(&(100..200), &[0x80, 0, 0, 0]), 150);
        assert_eq!(guess(&(0..u64::from(u32::MAX)), &[0xFF; 4]), 0xFFFF_FFFE);
    }
}
