//! The TOC's record of one segment.

use super::{Role, SECTION};
use crate::limits::{MAX_CHUNK_LEN, MAX_STORED_CHUNK_LEN, MAX_TABLE_LEN, check_at_most};
use crate::wire::{FieldReader, FieldWriter as _, SKIPPABLE_HEADER_LEN};
use crate::{Error, GitPath, Result, SegmentId, SegmentTable};

/// The unit of a tar stream, in bytes. A file is padded with zeros to a multiple of it.
const BLOCK_LEN: u64 = 512;

/// One segment of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TocSegment {
    /// The id of the segment: the digest of its table.
    pub id: SegmentId,
    /// The kind of its content.
    pub role: Role,
    /// The length of its chunks and its table in the archive, in bytes.
    pub stored_len: u64,
    /// The length of the frame of its table, which is at its end, in bytes.
    pub table_len: u32,
    /// The length of its content, in bytes.
    pub content_len: u64,
    /// The file whose data, or a part of it, is the content. `None` if the content is tar members.
    pub file: Option<TocFile>,
}

/// The file whose data, or a part of it, is the content of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TocFile {
    /// The path of the file, relative to the git directory. The path of a large file is relative to
    /// the work tree.
    pub path: GitPath,
    /// The bytes of the segment's content that belong to the file. The rest is padding of the tar.
    pub size: u64,
    /// The modification time in seconds since the epoch.
    pub mtime: i64,
}

impl TocSegment {
    /// Encodes the record as a TOC has it.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut record = Vec::new();
        self.encode(&mut record)?;
        Ok(record)
    }

    /// Decodes and checks a record as a TOC has it.
    pub fn from_bytes(record: &[u8]) -> Result<Self> {
        let mut reader = FieldReader::new(record, SECTION);
        let segment = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(segment)
    }

    pub(super) fn encode(&self, payload: &mut Vec<u8>) -> Result<()> {
        self.check()?;
        payload.extend_from_slice(self.id.0.as_bytes());
        payload.push(self.role.tag());
        payload.put_u64(self.stored_len);
        payload.put_u32(self.table_len);
        payload.put_u64(self.content_len);
        let Some(file) = &self.file else {
            payload.put_u16(0);
            return Ok(());
        };
        payload.put_bytes(file.path.as_bytes(), SECTION)?;
        payload.put_u64(file.size);
        payload.extend_from_slice(&file.mtime.to_le_bytes());
        Ok(())
    }

    pub(super) fn decode(reader: &mut FieldReader<'_>) -> Result<Self> {
        let id = SegmentId(reader.digest()?);
        let role = Role::from_tag(reader.u8()?)
            .ok_or_else(|| reader.malformed("the role of a segment is unknown"))?;
        let (stored_len, table_len, content_len) = (reader.u64()?, reader.u32()?, reader.u64()?);
        let file = match reader.bytes()? {
            [] => None,
            path => Some(TocFile {
                path: GitPath::parse(path)?,
                size: reader.u64()?,
                mtime: reader.i64()?,
            }),
        };
        let segment = Self {
            id,
            role,
            stored_len,
            table_len,
            content_len,
            file,
        };
        segment.check()?;
        Ok(segment)
    }

    /// Refuses a record that contradicts itself, so that no reader fetches anything by it.
    fn check(&self) -> Result<()> {
        let max = MAX_TABLE_LEN.saturating_add(u32::try_from(SKIPPABLE_HEADER_LEN).unwrap_or(0));
        // A reader fetches the table before it can verify it. So its length has to be limited here.
        check_at_most("segment table", self.table_len, max)?;
        let Some(chunks_len) = self.stored_len.checked_sub(self.table_len.into()) else {
            return malformed("the table of a segment is longer than the segment");
        };
        if (chunks_len == 0) != (self.content_len == 0) {
            return malformed("a segment has chunks without content, or content without chunks");
        }
        let chunks = SegmentTable::max_chunks(self.table_len);
        if self.content_len > chunks.saturating_mul(MAX_CHUNK_LEN.into())
            || chunks_len > chunks.saturating_mul(MAX_STORED_CHUNK_LEN.into())
        {
            // A mount shows the size of a file before it has the segment's table. Without this
            // check, a TOC could give a file any size.
            return malformed("a segment is longer than the chunks that its table can list");
        }
        if self.role.is_file_data() != self.file.is_some() {
            return malformed("the file of a segment doesn't match its role");
        }
        let Some(file) = &self.file else {
            return Ok(());
        };
        match self.content_len.checked_sub(file.size) {
            None => malformed("a file is longer than its segment"),
            Some(padding) if padding >= BLOCK_LEN => {
                malformed("a file is followed by more than the padding of a tar member")
            }
            Some(_) => Ok(()),
        }
    }

    /// Refuses a segment table that contradicts this record. The caller has verified the table by
    /// the segment's id.
    ///
    /// The id doesn't cover the lengths in the record. Without this check, an archive could give
    /// other lengths to a segment that it shares with another archive.
    pub fn check_table(&self, table: &SegmentTable) -> Result<()> {
        table.check_lens(self.stored_len, self.table_len, self.content_len)?;
        if self.role.is_file_data() && !table.entries().is_empty() {
            return malformed("a segment has tar members, but its role is file data");
        }
        Ok(())
    }
}

impl TocSegment {
    /// Refuses a chunk with bytes other than zero after the end of the file. The file's size would
    /// then be wrong.
    ///
    /// `content` is the content of the chunk; it starts at the byte `start` of the segment's
    /// content.
    pub fn check_padding(&self, start: u64, content: &[u8]) -> Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let kept = usize::try_from(file.size.saturating_sub(start)).unwrap_or(usize::MAX);
        let padding = content.get(kept..).unwrap_or_default();
        if padding.iter().any(|&byte| byte != 0) {
            return malformed("the padding after a file is not zero");
        }
        Ok(())
    }
}

fn malformed(reason: &'static str) -> Result<()> {
    let section = SECTION;
    Err(Error::Malformed { section, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Chunk, Digest, PackKind, SegmentWriter};

    const ID: SegmentId = SegmentId(Digest::from_bytes([7; 32]));

    /// Returns the record of a pack of 1000 bytes, which takes 600 bytes compressed.
    fn good() -> TocSegment {
        TocSegment {
            id: ID,
            role: Role::Pack(PackKind::Tip),
            stored_len: 666,
            table_len: 66,
            content_len: 1024,
            file: Some(TocFile {
                path: GitPath::parse(b"p").unwrap(),
                size: 1000,
                mtime: -1,
            }),
        }
    }

    fn encode(segment: &TocSegment) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        segment.encode(&mut bytes).map(|()| bytes)
    }

    fn decode(bytes: &[u8]) -> Result<TocSegment> {
        TocSegment::decode(&mut FieldReader::new(bytes, SECTION))
    }

    #[test]
    fn contradictory_records_are_neither_read_nor_written() {
        let bytes = encode(&good()).unwrap();
        assert_eq!(decode(&bytes), Ok(good()));
        // The offset of a field, and its new bytes.
        for (at, lie) in [
            (32, &[2][..]),                     // role: a header, which has no file
            (33, &65_u64.to_le_bytes()),        // stored: less than the table
            (33, &66_u64.to_le_bytes()),        // stored: no chunks
            (41, &667_u32.to_le_bytes()),       // table: longer than the segment
            (41, &u32::MAX.to_le_bytes()),      // table: longer than a reader accepts
            (33, &(1_u64 << 40).to_le_bytes()), // stored: longer than one chunk can be
            (41, &65_u32.to_le_bytes()),        // table: lists no chunk
            (45, &999_u64.to_le_bytes()),       // content: shorter than the file
            (45, &1512_u64.to_le_bytes()),      // content: a whole block of padding
            (45, &0_u64.to_le_bytes()),         // content: none
            (53, &[0, 0]),                      // path: none
            (56, &1025_u64.to_le_bytes()),      // file: longer than its content
            (56, &512_u64.to_le_bytes()),       // file: a whole block of padding
            (56, &u64::MAX.to_le_bytes()),
        ] {
            let mut damaged = bytes.clone();
            damaged.splice(at..at + lie.len(), lie.iter().copied());
            assert!(decode(&damaged).is_err(), "{lie:?} at {at} was read");
        }
        for refused in [
            TocSegment {
                file: None,
                ..good()
            },
            TocSegment {
                role: Role::Refs,
                ..good()
            },
            TocSegment {
                table_len: 667,
                ..good()
            },
            TocSegment {
                content_len: 999,
                ..good()
            },
        ] {
            assert!(encode(&refused).is_err(), "{refused:?} was written");
        }
    }

    #[test]
    fn a_table_with_other_lengths_is_refused() {
        let mut writer = SegmentWriter::default();
        writer.push_chunk(Chunk {
            stored_len: 600,
            content_len: 1024,
            digest: Digest::of(b"chunk"),
        });
        let (id, frame) = writer.finish().unwrap();
        let table = SegmentTable::decode(id, &frame).unwrap();

        assert_eq!(good().check_table(&table), Ok(()));
        for lie in [
            TocSegment {
                stored_len: 667,
                ..good()
            },
            TocSegment {
                stored_len: 667,
                table_len: 67,
                ..good()
            },
            TocSegment {
                content_len: 1025,
                ..good()
            },
        ] {
            assert!(lie.check_table(&table).is_err(), "{lie:?} was accepted");
        }
    }

    #[test]
    fn only_zeros_may_follow_a_file() {
        let content = [&[1; 500][..], &[0; 24]].concat();

        assert_eq!(good().check_padding(500, &content), Ok(()));
        // The data goes on for one byte after the end of the file.
        assert!(good().check_padding(501, &content).is_err());
        assert!(good().check_padding(1000, b"x").is_err());
        assert_eq!(good().check_padding(0, &[1; 1000]), Ok(()));
    }
}
