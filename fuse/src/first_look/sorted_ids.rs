//! Finds an object id in a sorted list of ids, and fetches the bytes that git reads to find it.

use std::ops::Range;
use std::sync::Arc;

use futures_util::future::{join, join_all};

use super::around::{fetch_around, number_at, read};
use crate::segment::{ReadError, Segment};

/// Bytes of a fan-out table: 256 numbers. Number `n` counts the ids whose first byte is at most
/// `n`.
pub(super) const FANOUT_LEN: usize = 1024;

/// A sorted list of ids in a file.
#[derive(Debug)]
pub(super) struct SortedIds<'a> {
    pub(super) segment: &'a Arc<Segment>,
    /// The offset of the list in the file, in bytes.
    pub(super) at: u64,
    /// Length of an id in bytes.
    pub(super) id_len: u64,
}

impl SortedIds<'_> {
    /// Returns the offset of id number `position` in the file, in bytes.
    pub(super) fn id_at(&self, position: u64) -> u64 {
        let offset = position.saturating_mul(self.id_len);
        self.at.saturating_add(offset)
    }

    /// Fetches the bytes that git reads to find `oid`. Returns its position, or `None` if it isn't
    /// there.
    pub(super) async fn find(&self, fanout: &[u8], oid: &[u8]) -> Result<Option<u64>, ReadError> {
        let Some(bucket) = bucket(fanout, oid) else {
            return Ok(None);
        };
        let guess = guess(&bucket, oid.get(1..).unwrap_or_default());
        let probes = probes(bucket.clone(), guess).map(|position| self.id_at(position));
        let probes = join_all(probes.map(|at| fetch_around(self.segment, at..at)));
        // Ids are digests, so they are spread evenly. Among n ids, the guess is typically off by
        // √n/2, and hardly ever by four times that.
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

/// Returns the positions of the ids that have the first byte of `oid`, or `None` if there are none.
fn bucket(fanout: &[u8], oid: &[u8]) -> Option<Range<u64>> {
    let byte = usize::from(*oid.first()?);
    let start = match byte.checked_sub(1) {
        Some(before) => number_at(fanout, before * 4)?,
        None => 0,
    };
    let end = number_at(fanout, byte * 4)?;
    (start < end).then_some(start..end)
}

/// Returns the most likely position in `positions` of an id whose next bytes are `bytes`.
pub(super) fn guess(positions: &Range<u64>, bytes: &[u8]) -> u64 {
    let count = positions.end.saturating_sub(positions.start);
    let share = number_at(bytes, 0).unwrap_or(0);
    // Both numbers are less than 2^32, so the product fits.
    positions.start + (count.saturating_mul(share) >> 32)
}

/// Returns the positions that a binary search for `target` visits.
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
    fn the_guess_follows_the_first_bytes_of_the_id() {
        assert_eq!(guess(&(100..200), &[0x80, 0, 0, 0]), 150);
        assert_eq!(guess(&(0..u64::from(u32::MAX)), &[0xFF; 4]), 0xFFFF_FFFE);
    }
}
