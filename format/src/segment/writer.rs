//! Building a segment.

use super::entry::Entry;
use super::table::{Chunk, SegmentTable};
use crate::{Result, SegmentId};

/// Collects the records of a segment while its chunks are written.
///
/// It does no I/O: the caller writes each encoded chunk, in order, and at last the table's frame.
#[derive(Debug, Default)]
pub struct SegmentWriter {
    chunks: Vec<Chunk>,
    entries: Vec<Entry>,
    stored_len: u64,
    content_len: u64,
}

impl SegmentWriter {
    /// Takes the record of the next chunk, from [`encode_chunk`](crate::encode_chunk).
    pub fn push_chunk(&mut self, chunk: Chunk) {
        self.stored_len = self.stored_len.saturating_add(u64::from(chunk.stored_len));
        self.content_len = self
            .content_len
            .saturating_add(u64::from(chunk.content_len));
        self.chunks.push(chunk);
    }

    /// Takes the record of the next tar member.
    pub fn push_entry(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Length of the content of the chunks so far, in bytes.
    pub fn content_len(&self) -> u64 {
        self.content_len
    }

    /// Length of the chunks so far as stored, in bytes.
    pub fn stored_len(&self) -> u64 {
        self.stored_len
    }

    /// The records of the chunks so far, for the seek table.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Ends the segment: its id, and the frame of its table, to be written after the last chunk.
    pub fn finish(self) -> Result<(SegmentId, Vec<u8>)> {
        SegmentTable::encode(&self.chunks, &self.entries)
    }
}
