//! Reads places of a file as the kernel does, with the bytes around them.

use std::ops::Range;
use std::sync::Arc;

use crate::negotiated::READ_AHEAD;
use crate::segment::{ReadError, Segment};
use crate::traffic::Purpose;

/// Bytes that the kernel reads on either side of a page fault in a mapped file: half of
/// [`READ_AHEAD`].
const FAULT_AROUND: u64 = READ_AHEAD as u64 / 2;

/// Fetches the bytes that the kernel reads for a page fault in `range`.
pub(super) async fn fetch_around(segment: &Arc<Segment>, range: Range<u64>) {
    let end = range.end.saturating_add(FAULT_AROUND).min(segment.len());
    let start = range.start.saturating_sub(FAULT_AROUND).min(end);
    segment.fetch_exactly(start..end).await.ok();
}

/// Reads `range`, and also fetches the bytes around it that the kernel would read.
pub(super) async fn read(segment: &Arc<Segment>, range: Range<u64>) -> Result<Vec<u8>, ReadError> {
    fetch_around(segment, range.clone()).await;
    segment.read(range, Purpose::Background).await
}

/// Returns the number in the 4 bytes at `at`, in network byte order, or `None` beyond the end.
pub(super) fn number_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from(u32::from_be_bytes(*bytes)))
}
