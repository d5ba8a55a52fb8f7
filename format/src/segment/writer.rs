//! Collects the records of a segment that is being written.

use super::entry::Entry;
use super::table::{Chunk, SegmentTable};
use crate::{Result, SegmentId};

/// The records of a segment whose chunks are being written.
///
/// It does no I/O. The caller writes each encoded chunk, in order, and then the table's frame.
#[derive(Debug, Default)]
pub struct SegmentWriter {
    chunks: Vec<Chunk>,
    entries: Vec<Entry>,
    stored_len: u64,
    content_len: u64,
}

impl SegmentWriter {
    /// Adds the record of the next chunk, from [`encode_chunk`](crate::encode_chunk).
    pub fn push_chunk(&mut self, chunk: Chunk) {
        self.stored_len = self.stored_len.saturating_add(u64::from(chunk.stored_len));
        self.content_len = self
            .content_len
            .saturating_add(u64::from(chunk.content_len));
        self.chunks.push(chunk);
    }

    /// Adds the record of the next tar member.
    pub fn push_entry(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Returns the length of the content of the chunks so far, in bytes.
    pub fn content_len(&self) -> u64 {
        self.content_len
    }

    /// Returns the length of the chunks so far as stored, in bytes.
    pub fn stored_len(&self) -> u64 {
        self.stored_len
    }

    /// Returns the records of the chunks so far, for the seek table.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Ends the segment. Returns its id and the frame of its table, which the caller writes after
    /// the last chunk.
    pub fn finish(self) -> Result<(SegmentId, Vec<u8>)> {
        SegmentTable::encode(&self.chunks, &self.entries)
    }
}
