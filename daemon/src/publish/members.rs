//! Writing a segment of tar members: small files, directories, symbolic links.

use std::io::Read;

use cachewfs_format::{
    ChunkEncoding, Content, Entry, EntryKind, GitPath, ObjectId, PublishedFile, SegmentId,
    member_header, padding_len,
};

use super::PublishError;
use super::segments::{SEQUENTIAL_CHUNK_LEN, SegmentFile, SegmentSink, ZSTD_LEVEL};

/// The name and the attributes of a tar member.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) path: GitPath,
    pub(super) mode: u32,
    pub(super) mtime: i64,
    pub(super) blob: Option<ObjectId>,
}

/// A writer of tar members, one after the other, into one segment.
#[derive(Debug)]
pub(super) struct MemberWriter {
    segment: SegmentFile,
    buffer: Vec<u8>,
}

impl MemberWriter {
    pub(super) fn begin(sink: &mut SegmentSink) -> Result<Self, PublishError> {
        Ok(Self {
            segment: sink.begin()?,
            buffer: Vec::new(),
        })
    }

    /// Writes a file with its content. `content` must have exactly `size` bytes.
    pub(super) fn file(
        &mut self,
        member: Member,
        size: u64,
        mut content: impl Read,
    ) -> Result<(), PublishError> {
        // The header needs only the kind. The offset is known once the header is written.
        let unplaced = EntryKind::File(Content::Inline { offset: 0 });
        self.header(&member, &unplaced, size)?;
        let offset = self.segment.content_len() + self.buffer.len() as u64;
        let mut left = size;
        while left > 0 {
            let wanted = left.min(SEQUENTIAL_CHUNK_LEN as u64);
            let path = std::path::Path::new("the work tree");
            let read = (&mut content)
                .take(wanted)
                .read_to_end(&mut self.buffer)
                .map_err(PublishError::at(path))? as u64;
            if read == 0 {
                return Err(PublishError::at(path)(
                    std::io::ErrorKind::UnexpectedEof.into(),
                ));
            }
            left -= read;
            self.flush_whole_chunks()?;
        }
        self.buffer.resize(self.buffer.len() + padding_len(size), 0);
        self.entry(member, EntryKind::File(Content::Inline { offset }), size);
        Ok(())
    }

    /// Writes the header of a file whose data is the next segment.
    pub(super) fn file_elsewhere(
        &mut self,
        member: Member,
        size: u64,
        segment: SegmentId,
    ) -> Result<(), PublishError> {
        let kind = EntryKind::File(Content::Segment(segment));
        self.header(&member, &kind, size)?;
        self.entry(member, kind, size);
        Ok(())
    }

    /// Writes a directory or a symbolic link.
    pub(super) fn empty(&mut self, member: Member, kind: EntryKind) -> Result<(), PublishError> {
        self.header(&member, &kind, 0)?;
        self.entry(member, kind, 0);
        Ok(())
    }

    fn header(&mut self, member: &Member, kind: &EntryKind, size: u64) -> Result<(), PublishError> {
        let header = member_header(&member.path, kind, member.mode, size, member.mtime)?;
        self.buffer.extend_from_slice(&header);
        self.flush_whole_chunks()
    }

    fn entry(&mut self, member: Member, kind: EntryKind, size: u64) {
        let Member {
            path,
            mode,
            mtime,
            blob,
        } = member;
        self.segment.push_entry(Entry {
            path,
            kind,
            mode,
            size,
            mtime,
            blob,
        });
    }

    fn flush_whole_chunks(&mut self) -> Result<(), PublishError> {
        while let Some(chunk) = self.buffer.get(..SEQUENTIAL_CHUNK_LEN) {
            self.segment
                .push_chunk(chunk, ChunkEncoding::Zstd(ZSTD_LEVEL))?;
            self.buffer.drain(..SEQUENTIAL_CHUNK_LEN);
        }
        Ok(())
    }

    /// Ends the segment and moves it into `sink`.
    pub(super) fn finish(mut self, sink: &mut SegmentSink) -> Result<PublishedFile, PublishError> {
        if !self.buffer.is_empty() {
            self.segment
                .push_chunk(&self.buffer, ChunkEncoding::Zstd(ZSTD_LEVEL))?;
        }
        let len = self.segment.content_len();
        sink.finish(self.segment, "", len)
    }
}
