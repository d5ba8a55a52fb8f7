//! [`Reading`]: a read of a segment whose table is there.

use std::ops::Range;
use std::sync::Arc;

use cachewfs_format::{PlacedChunk, SegmentTable};

use super::{ReadError, Segment};
use crate::cache::SegmentFile;
use crate::traffic::Purpose;

/// A read of a segment whose table is there.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) segment: Arc<Segment>,
    pub(super) table: Arc<SegmentTable>,
    pub(super) purpose: Purpose,
}

impl Reading {
    /// Begins a read: loads the table.
    pub(super) async fn begin(segment: &Arc<Segment>, purpose: Purpose) -> Result<Self, ReadError> {
        Ok(Self {
            table: segment.table(purpose).await?,
            segment: Arc::clone(segment),
            purpose,
        })
    }

    /// Returns the cache files, or `None` if they can't be opened.
    pub(super) fn file(&self) -> Option<Arc<SegmentFile>> {
        self.segment.file(&self.table)
    }

    /// Returns the chunks with these indexes.
    pub(super) fn chunks(&self, indexes: Range<usize>) -> impl Iterator<Item = PlacedChunk> {
        indexes.filter_map(|index| self.table.chunk_at(index))
    }
}
