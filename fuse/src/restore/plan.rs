//! The plan of a download: the segments of a snapshot, divided into steps.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::segment::{ReadError, Segment};
use crate::traffic::Purpose;

/// The number of steps under way. With 8 connections, a link with a round trip of 50 ms is full.
pub(super) const REQUESTS: usize = 8;
/// At most this many stored bytes are in one step, unless a single chunk is longer. All steps under
/// way are in memory in the worst case, so this times [`REQUESTS`] is a part of the memory bound.
const STEP_LEN: u64 = 2 << 20;
/// At most this many segments are in one step.
const MAX_SEGMENTS: usize = 64;

/// A part of the download.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) work: StepWork,
    /// The stored bytes of the step.
    pub(super) bytes: u64,
}

/// The bytes that a step fetches.
#[derive(Debug)]
pub(super) enum StepWork {
    /// Small segments, most of them neighbours.
    Whole(Vec<Arc<Segment>>),
    /// A half-open range of the content of a large segment.
    Piece(Arc<Segment>, Range<u64>),
}

/// Divides `segments` into steps, in their order. Fetches the tables of the large ones first.
///
/// A segment that occurs several times is in one step only.
pub(super) async fn plan(segments: &[Arc<Segment>]) -> Result<Vec<Step>, ReadError> {
    let mut known = HashSet::new();
    let segments: Vec<_> = segments
        .iter()
        .filter(|segment| known.insert(segment.record().id))
        .collect();
    let large = segments
        .iter()
        .filter(|segment| !segment.is_fetched_whole());
    stream::iter(large)
        .map(|segment| segment.table(Purpose::Background))
        .buffer_unordered(REQUESTS)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let mut steps = Vec::new();
    let mut small = Vec::new();
    let mut small_bytes = 0;
    for segment in segments {
        let len = segment.record().stored_len;
        let is_small = segment.is_fetched_whole();
        if !is_small || small_bytes + len > STEP_LEN || small.len() == MAX_SEGMENTS {
            steps.extend(whole(std::mem::take(&mut small), small_bytes));
            small_bytes = 0;
        }
        if is_small {
            small.push(Arc::clone(segment));
            small_bytes += len;
        } else {
            steps.extend(pieces(segment).await?);
        }
    }
    steps.extend(whole(small, small_bytes));
    Ok(steps)
}

fn whole(segments: Vec<Arc<Segment>>, bytes: u64) -> Option<Step> {
    (!segments.is_empty()).then(|| Step {
        work: StepWork::Whole(segments),
        bytes,
    })
}

/// Divides a large segment into ranges of whole chunks.
async fn pieces(segment: &Arc<Segment>) -> Result<Vec<Step>, ReadError> {
    let table = segment.table(Purpose::Background).await?;
    let mut steps: Vec<Step> = Vec::new();
    let mut range = 0..0;
    let mut bytes = u64::from(segment.record().table_len);
    let mut push = |range: Range<u64>, bytes| {
        steps.push(Step {
            work: StepWork::Piece(Arc::clone(segment), range),
            bytes,
        });
    };
    for chunk in table.placed_chunks() {
        let len = u64::from(chunk.record.stored_len);
        if range.end > range.start && bytes + len > STEP_LEN {
            push(range.clone(), bytes);
            range.start = range.end;
            bytes = 0;
        }
        range.end = chunk.content.end;
        bytes += len;
    }
    push(range, bytes);
    Ok(steps)
}
