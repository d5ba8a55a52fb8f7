//! What the TOC says of one segment.

use super::{Role, SECTION};
use crate::limits::{MAX_CHUNK_LEN, MAX_STORED_CHUNK_LEN, MAX_TABLE_LEN, check_at_most};
use crate::wire::{FieldReader, FieldWriter as _, SKIPPABLE_HEADER_LEN};
use crate::{Error, GitPath, Result, SegmentId, SegmentTable};

/// The unit of a tar stream, in bytes: what follows a file up to it is padding.
const BLOCK_LEN: u64 = 512;

/// One segment of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TocSegment {
    /// The digest of its table.
    pub id: SegmentId,
    /// What it holds.
    pub role: Role,
    /// Length in the archive: chunks and table, in bytes.
    pub stored_len: u64,
    /// Length of the frame of its table, at its end, in bytes.
    pub table_len: u32,
    /// Length of its content, in bytes.
    pub content_len: u64,
    /// For file data: the file that it is, or is a part of.
    pub file: Option<TocFile>,
}

/// The file that the data of a segment is of, or a part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TocFile {
    /// Relative to the git directory; of a large file, to the work tree.
    pub path: GitPath,
    /// Bytes of the segment's content that belong to the file; the rest is padding of the tar.
    pub size: u64,
    /// Modification time in seconds since the epoch.
    pub mtime: i64,
}

impl TocSegment {
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

    /// Refuses what contradicts itself, before anything is fetched by it.
    fn check(&self) -> Result<()> {
        let max = MAX_TABLE_LEN.saturating_add(u32::try_from(SKIPPABLE_HEADER_LEN).unwrap_or(0));
        // A reader fetches a table before it can verify it.
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
            // A mount shows the sizes of files before it has their tables.
            return malformed("a segment is longer than the chunks that its table can list");
        }
        if self.role.is_file_data() != self.file.is_some() {
            return malformed("a segment has a file where its role has none, or the reverse");
        }
        let Some(file) = &self.file else {
            return Ok(());
        };
        match self.content_len.checked_sub(file.size) {
            None => malformed("a file is longer than its segment"),
            Some(padding) if padding >= BLOCK_LEN => malformed("a file has more than its padding"),
            Some(_) => Ok(()),
        }
    }

    /// Refuses a table, verified by this segment's id, that doesn't fit what is said here: else
    /// one archive could give the bytes that it shares with another new lengths.
    pub fn check_table(&self, table: &SegmentTable) -> Result<()> {
        table.check_lens(self.stored_len, self.table_len, self.content_len)?;
        if self.role.is_file_data() && !table.entries().is_empty() {
            return malformed("a segment has tar members where its role has the data of a file");
        }
        Ok(())
    }
}

impl TocSegment {
    /// Refuses `content`, the content of a chunk that starts at `start` of the segment's content,
    /// if it has anything but zeros after the end of the file: then the file's size is a lie.
    pub fn check_padding(&self, start: u64, content: &[u8]) -> Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let kept = usize::try_from(file.size.saturating_sub(start)).unwrap_or(usize::MAX);
        let padding = content.get(kept..).unwrap_or_default();
        if padding.iter().any(|&byte| byte != 0) {
            return malformed("a file ends before its content does");
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
    use crate::{Chunk, Digest, SegmentWriter};

    const ID: SegmentId = SegmentId(Digest::from_bytes([7; 32]));

    /// A pack of 1000 bytes in 600.
    fn good() -> TocSegment {
        TocSegment {
            id: ID,
            role: Role::PackTip,
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
        // Where a field is, and what it is changed to.
        for (at, lie) in [
            (32, &[2][..]),                     // role: a header, which has no file
            (33, &65_u64.to_le_bytes()),        // stored: less than the table
            (33, &66_u64.to_le_bytes()),        // stored: no chunks
            (41, &667_u32.to_le_bytes()),       // table: longer than the segment
            (41, &u32::MAX.to_le_bytes()),      // table: longer than a reader takes
            (33, &(1_u64 << 40).to_le_bytes()), // stored: more than one chunk is
            (41, &65_u32.to_le_bytes()),        // table: lists no chunk
            (45, &999_u64.to_le_bytes()),       // content: shorter than the file
            (45, &1512_u64.to_le_bytes()),      // content: a whole block of padding
            (45, &0_u64.to_le_bytes()),         // content: none
            (53, &[0, 0]),                      // path: none
            (56, &1025_u64.to_le_bytes()),      // file: longer than its content
            (56, &512_u64.to_le_bytes()),       // file: a block of padding
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
            assert!(lie.check_table(&table).is_err(), "{lie:?} fits");
        }
    }

    #[test]
    fn only_zeros_may_follow_a_file() {
        let content = [&[1; 500][..], &[0; 24]].concat();

        assert_eq!(good().check_padding(500, &content), Ok(()));
        // 999 bytes of data, then one that would be cut off.
        assert!(good().check_padding(501, &content).is_err());
        assert!(good().check_padding(1000, b"x").is_err());
        assert_eq!(good().check_padding(0, &[1; 1000]), Ok(()));
    }
}
