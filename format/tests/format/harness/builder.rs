//! Builds an archive in memory, segment by segment. The tests of the crate `fuse` use this file
//! too.

use cachewfs_format::{
    ArchiveKind, ChunkEncoding, Digest, Entry, FrameSize, ObjectId, RepoName, Role, SeekTable,
    SegmentId, SegmentWriter, Toc, TocFile, TocSegment, encode_chunk,
};

/// An archive that is being built.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    frames: Vec<FrameSize>,
    segments: Vec<TocSegment>,
}

impl Builder {
    /// Appends a segment with these chunks. Returns its id.
    pub(crate) fn segment<'a>(
        &mut self,
        role: Role,
        chunks: impl IntoIterator<Item = (&'a [u8], ChunkEncoding)>,
        entries: Vec<Entry>,
        file: Option<TocFile>,
    ) -> SegmentId {
        let mut writer = SegmentWriter::default();
        let start = self.bytes.len();
        for (content, encoding) in chunks {
            let (chunk, stored) = encode_chunk(content, encoding).unwrap();
            writer.push_chunk(chunk);
            self.push_frame(chunk.content_len, &stored);
        }
        for entry in entries {
            writer.push_entry(entry);
        }
        let content_len = writer.content_len();
        let (id, table) = writer.finish().unwrap();
        self.push_frame(0, &table);
        self.segments.push(TocSegment {
            id,
            role,
            stored_len: (self.bytes.len() - start) as u64,
            table_len: u32::try_from(table.len()).unwrap(),
            content_len,
            file,
        });
        id
    }

    /// Ends the archive, a checkout archive of `repo`. Returns it with the digest that names it.
    pub(crate) fn finish(
        mut self,
        repo: &str,
        commit: ObjectId,
        refs_digest: Digest,
    ) -> (Vec<u8>, Digest) {
        let toc = Toc {
            kind: ArchiveKind::Checkout,
            repo: RepoName::parse(repo).unwrap(),
            commit,
            refs_digest,
            hot_segments: 1,
            segments: std::mem::take(&mut self.segments),
        };
        let (digest, toc) = toc.encode().unwrap();
        self.push_frame(0, &toc);
        let Self {
            mut bytes, frames, ..
        } = self;
        bytes.extend(SeekTable { frames }.encode().unwrap());
        (bytes, digest)
    }

    fn push_frame(&mut self, content_len: u32, stored: &[u8]) {
        let stored_len = u32::try_from(stored.len()).unwrap();
        self.frames.push(FrameSize {
            stored_len,
            content_len,
        });
        self.bytes.extend_from_slice(stored);
    }
}
