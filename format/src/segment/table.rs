//! The segment table: the chunks of a segment, and the tar members in them.

use std::ops::Range;

use super::entry::Entry;
use crate::limits::{MAX_ENTRIES, MAX_TABLE_LEN, check_at_most};
use crate::wire::{
    FieldReader, FieldWriter as _, SKIPPABLE_HEADER_LEN, skippable_frame, skippable_payload,
};
use crate::{Digest, Error, Result, SegmentId};

const SECTION: &str = "segment table";
const MAGIC: [u8; 8] = *b"CWFSSEG\0";
const VERSION: u16 = 1;
/// The magic number of the skippable frame that has the table.
const FRAME_MAGIC: u32 = 0x184D_2A5A;
const CHUNK_RECORD_LEN: usize = 4 + 4 + 32;
/// The length of the header in front of the records of chunks: magic bytes, version, two counts.
const HEADER_LEN: usize = 8 + 2 + 4 + 4;
/// At most this many entries have memory reserved before they are decoded. Writers put no more in a
/// table.
const RESERVED_ENTRIES: usize = 1024;

/// One chunk of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The length in the archive, in bytes.
    pub stored_len: u32,
    /// The length of the content, in bytes.
    pub content_len: u32,
    /// The digest of the stored bytes.
    pub digest: Digest,
}

/// A chunk, and its place in its segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedChunk {
    /// The number of the chunk in its segment, from 0 on.
    pub index: usize,
    /// The record of the chunk in the table.
    pub record: Chunk,
    /// The range of the chunk in the segment as stored, half-open, in bytes.
    pub stored: Range<u64>,
    /// The range of the chunk in the segment's content, half-open, in bytes.
    pub content: Range<u64>,
}

/// The chunks of a segment, in order, and the tar members in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentTable {
    chunks: Vec<Chunk>,
    /// The offsets of each chunk as (stored, content), in bytes. The last item is the end of the
    /// last chunk, so there is one item more than there are chunks.
    starts: Vec<(u64, u64)>,
    entries: Vec<Entry>,
    /// The length of the table's frame, in bytes.
    frame_len: u64,
}

impl SegmentTable {
    /// Encodes a table. Returns the id of the segment, and the table's skippable frame.
    pub(super) fn encode(chunks: &[Chunk], entries: &[Entry]) -> Result<(SegmentId, Vec<u8>)> {
        check_at_most(SECTION, entries.len(), MAX_ENTRIES)?;
        let mut payload = Vec::new();
        payload.extend_from_slice(&MAGIC);
        payload.put_u16(VERSION);
        payload.put_count(chunks.len(), SECTION)?;
        payload.put_count(entries.len(), SECTION)?;
        for chunk in chunks {
            chunk.check()?;
            payload.put_u32(chunk.stored_len);
            payload.put_u32(chunk.content_len);
            payload.extend_from_slice(chunk.digest.as_bytes());
        }
        let content_len = chunks.iter().fold(0_u64, |sum, chunk| {
            sum.saturating_add(chunk.content_len.into())
        });
        let mut end = 0;
        for entry in entries {
            entry.check_after(&mut end)?;
            entry.encode(&mut payload, content_len)?;
        }
        check_at_most(SECTION, payload.len(), MAX_TABLE_LEN)?;
        let id = SegmentId(Digest::of(&payload));
        Ok((id, skippable_frame(FRAME_MAGIC, &payload, SECTION)?))
    }

    /// Verifies and decodes the skippable frame of the table of segment `id`.
    pub fn decode(id: SegmentId, frame: &[u8]) -> Result<Self> {
        check_at_most(
            SECTION,
            frame.len().saturating_sub(SKIPPABLE_HEADER_LEN),
            MAX_TABLE_LEN,
        )?;
        let payload = skippable_payload(frame, FRAME_MAGIC, SECTION)?;
        // The digest comes first, so that no unverified byte is parsed.
        if Digest::of(payload) != id.0 {
            return Err(Error::WrongDigest {
                section: SECTION,
                expected: id.0,
            });
        }
        Self::decode_payload(payload)
    }

    fn decode_payload(payload: &[u8]) -> Result<Self> {
        let mut reader = FieldReader::new(payload, SECTION);
        reader.magic_and_version(MAGIC, VERSION)?;
        let chunk_count = reader.count(CHUNK_RECORD_LEN)?;
        let entry_count = reader.count(Entry::MIN_LEN)?;
        check_at_most(SECTION, entry_count, MAX_ENTRIES)?;
        let mut chunks = Vec::with_capacity(chunk_count);
        for _ in 0..chunk_count {
            let (stored_len, content_len) = (reader.u32()?, reader.u32()?);
            let chunk = Chunk {
                stored_len,
                content_len,
                digest: reader.digest()?,
            };
            chunk.check()?;
            chunks.push(chunk);
        }
        let starts = starts(&chunks);
        let content_len = starts.last().map_or(0, |&(_, content)| content);
        // The count of entries was compared with all bytes after it. The records of chunks have
        // taken some of them, so it is compared again.
        reader.expect_records(entry_count, Entry::MIN_LEN)?;
        // An entry takes several times as much memory as its record. So memory isn't reserved for
        // the full count, which may be false, but grows with the entries.
        let mut entries = Vec::with_capacity(entry_count.min(RESERVED_ENTRIES));
        let mut end = 0;
        for _ in 0..entry_count {
            let entry = Entry::decode(&mut reader, content_len)?;
            entry.check_after(&mut end)?;
            entries.push(entry);
        }
        reader.finish()?;
        Ok(Self {
            chunks,
            starts,
            entries,
            frame_len: u64::try_from(payload.len().saturating_add(SKIPPABLE_HEADER_LEN))
                .unwrap_or(u64::MAX),
        })
    }

    /// Encodes the table again. The result is the skippable frame from which it was decoded.
    pub fn to_frame(&self) -> Result<Vec<u8>> {
        Self::encode(&self.chunks, &self.entries).map(|(_, frame)| frame)
    }

    /// Returns the chunks, in order.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Returns chunk `index` with its place, or `None` if there is no such chunk.
    pub fn chunk_at(&self, index: usize) -> Option<PlacedChunk> {
        Some(PlacedChunk {
            index,
            record: *self.chunks.get(index)?,
            stored: self.stored_range(index)?,
            content: self.content_range(index)?,
        })
    }

    /// Returns the chunks that have the bytes `content`, each with its place. `content` is a
    /// half-open range of the segment's content.
    pub fn chunks_in(&self, content: Range<u64>) -> impl Iterator<Item = PlacedChunk> {
        self.chunks_of(content)
            .filter_map(|index| self.chunk_at(index))
    }

    /// Returns all chunks with their places.
    pub fn placed_chunks(&self) -> impl Iterator<Item = PlacedChunk> {
        (0..self.chunks.len()).filter_map(|index| self.chunk_at(index))
    }

    /// Returns the tar members, in order. A segment with the data of a file has none.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns how many chunks a table can list at most if its frame is `frame_len` bytes long.
    pub(crate) fn max_chunks(frame_len: u32) -> u64 {
        let fixed = SKIPPABLE_HEADER_LEN.saturating_add(HEADER_LEN);
        let records = usize::try_from(frame_len)
            .unwrap_or(0)
            .saturating_sub(fixed);
        u64::try_from(records / CHUNK_RECORD_LEN).unwrap_or(0)
    }

    /// Refuses the table if its lengths differ from those in a TOC or a manifest: the whole segment
    /// as stored, the table's frame, and the content.
    ///
    /// The segment's id verifies only the table. The lengths come from the TOC or the manifest,
    /// which somebody else may have made.
    pub(crate) fn check_lens(&self, stored: u64, table: u32, content: u64) -> Result<()> {
        if self.frame_len == u64::from(table)
            && self.content_len() == content
            && self.stored_len().checked_add(self.frame_len) == Some(stored)
        {
            return Ok(());
        }
        Err(Error::Malformed {
            section: SECTION,
            reason: "its lengths differ from those in the TOC or the manifest",
        })
    }

    /// Returns the length of the frame of the table itself, in bytes.
    pub fn frame_len(&self) -> u64 {
        self.frame_len
    }

    /// Returns the length of all chunks as stored, without the table, in bytes.
    pub fn stored_len(&self) -> u64 {
        self.starts.last().map_or(0, |&(stored, _)| stored)
    }

    /// Returns the length of the content of all chunks, in bytes.
    pub fn content_len(&self) -> u64 {
        self.starts.last().map_or(0, |&(_, content)| content)
    }

    /// Returns the range of chunk `index` in the segment as stored, half-open, in bytes. Returns
    /// `None` if there is no such chunk.
    pub fn stored_range(&self, index: usize) -> Option<Range<u64>> {
        Some(self.starts.get(index)?.0..self.starts.get(index.checked_add(1)?)?.0)
    }

    /// Returns the range of chunk `index` in the segment's content, half-open, in bytes. Returns
    /// `None` if there is no such chunk.
    pub fn content_range(&self, index: usize) -> Option<Range<u64>> {
        Some(self.starts.get(index)?.1..self.starts.get(index.checked_add(1)?)?.1)
    }

    /// Returns the indexes of the chunks that have the bytes `content`, a half-open range of the
    /// segment's content. The result is empty if the range is empty or starts after the end.
    pub fn chunks_of(&self, content: Range<u64>) -> Range<usize> {
        if content.start >= content.end || content.start >= self.content_len() {
            return 0..0;
        }
        let first = self
            .starts
            .partition_point(|&(_, start)| start <= content.start);
        let end = self
            .starts
            .partition_point(|&(_, start)| start < content.end);
        first.saturating_sub(1)..end.min(self.chunks.len())
    }
}

/// Returns the offset of each chunk as (stored, content), and at last the end of all chunks.
fn starts(chunks: &[Chunk]) -> Vec<(u64, u64)> {
    // Both are sums of at most 2^32 numbers of 32 bits, which can't overflow 64 bits.
    let mut end = (0_u64, 0_u64);
    let mut starts = Vec::with_capacity(chunks.len().saturating_add(1));
    starts.push(end);
    for chunk in chunks {
        end.0 = end.0.saturating_add(u64::from(chunk.stored_len));
        end.1 = end.1.saturating_add(u64::from(chunk.content_len));
        starts.push(end);
    }
    starts
}
