//! Writing segments to temporary files, which the store takes over when the build has ended.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use cachewfs_format::{
    ChunkEncoding, Entry, PublishedFile, SegmentId, SegmentRef, SegmentWriter, encode_chunk,
    padding_len,
};

use super::PublishError;
use crate::mirror::Git;
use crate::store::NewSegment;

/// The chunk length of files that git searches: indexes of packs and the commit-graph. A search
/// reads a few bytes in each of several places.
pub(super) const INDEX_CHUNK_LEN: usize = 16 << 10;
/// The chunk length of files that are read in random places: packs and large files.
///
/// On git's repository, commits, trees and history take 80.3 MB in chunks of 256 KiB, 75.1 MB in
/// chunks of 512 KiB and 71.1 MB in chunks of 1 MiB. Longer chunks cost a reader more, because it
/// fetches and decompresses a whole chunk for one object.
pub(super) const RANDOM_CHUNK_LEN: usize = 512 << 10;
/// The chunk length of data that is read from beginning to end: small files and the tip pack.
pub(super) const SEQUENTIAL_CHUNK_LEN: usize = 1 << 20;
/// The compression level of zstd.
///
/// The 52 MB work tree of git's repository takes 12.5 MB with level 3, 11.3 MB with 6, 11.1 MB with
/// 9 and 10.9 MB with 12. Compressing it takes 0.6, 1.3, 1.9 and 4.8 s (2026-11).
pub(super) const ZSTD_LEVEL: i32 = 9;
/// Compression must save at least this share. Less isn't worth the time of decompression.
const MIN_SAVING: f64 = 0.04;

/// The new segments of one publish.
#[derive(Debug)]
pub(super) struct SegmentSink {
    /// Says whether the daemon is stopping.
    git: Git,
    directory: PathBuf,
    created: usize,
    new: Vec<NewSegment>,
    /// Bytes written since the last call of [`SegmentSink::take_written`].
    written: u64,
    by_id: HashMap<SegmentId, usize>,
}

/// A segment that is still written.
#[derive(Debug)]
pub(super) struct SegmentFile {
    path: PathBuf,
    file: BufWriter<File>,
    writer: SegmentWriter,
}

impl SegmentSink {
    pub(super) fn new(git: &Git, directory: &Path) -> Self {
        Self {
            git: git.clone(),
            directory: directory.to_owned(),
            created: 0,
            new: Vec::new(),
            written: 0,
            by_id: HashMap::new(),
        }
    }

    /// Begins a segment.
    pub(super) fn begin(&mut self) -> Result<SegmentFile, PublishError> {
        let path = self.directory.join(format!("segment-{}", self.created));
        self.created += 1;
        let file = File::create(&path).map_err(PublishError::at(&path))?;
        Ok(SegmentFile {
            path,
            file: BufWriter::new(file),
            writer: SegmentWriter::default(),
        })
    }

    /// Ends a segment. `name` and `size` describe the file whose data the segment has.
    pub(super) fn finish(
        &mut self,
        segment: SegmentFile,
        name: &str,
        size: u64,
    ) -> Result<PublishedFile, PublishError> {
        let SegmentFile {
            path,
            mut file,
            writer,
        } = segment;
        // Equal lengths in a row are counted, because raw chunks all have one length: the manifest
        // of a long incompressible file stays short.
        let mut frames: Vec<(u32, u32, u32)> = Vec::new();
        for chunk in writer.chunks() {
            match frames.last_mut() {
                Some((stored, content, count))
                    if (*stored, *content) == (chunk.stored_len, chunk.content_len) =>
                {
                    *count += 1;
                }
                _ => frames.push((chunk.stored_len, chunk.content_len, 1)),
            }
        }
        let (stored_len, content_len) = (writer.stored_len(), writer.content_len());
        let (id, table) = writer.finish()?;
        file.write_all(&table)
            .and_then(|()| file.flush())
            .map_err(PublishError::at(&path))?;
        let len = stored_len + table.len() as u64;
        self.push(NewSegment {
            id,
            file: path,
            len,
        });
        Ok(PublishedFile {
            name: name.to_owned(),
            size,
            segment: SegmentRef { id, len },
            table_len: u32::try_from(table.len()).unwrap_or(u32::MAX),
            content_len,
            frames,
        })
    }

    /// Stores a segment with `bytes` as its content.
    pub(super) fn store_bytes(
        &mut self,
        bytes: &[u8],
        size: u64,
        entries: Vec<Entry>,
    ) -> Result<PublishedFile, PublishError> {
        let mut segment = self.begin()?;
        for content in bytes.chunks(SEQUENTIAL_CHUNK_LEN) {
            segment.push_chunk(content, ChunkEncoding::Zstd(ZSTD_LEVEL))?;
        }
        for entry in entries {
            segment.push_entry(entry);
        }
        self.finish(segment, "", size)
    }

    /// Stores raw bytes under `id`: TOC and seek table, which are not in the form of a segment.
    pub(super) fn store_raw(&mut self, id: SegmentId, bytes: &[u8]) -> Result<(), PublishError> {
        let SegmentFile { path, mut file, .. } = self.begin()?;
        file.write_all(bytes)
            .and_then(|()| file.flush())
            .map_err(PublishError::at(&path))?;
        self.push(NewSegment {
            id,
            file: path,
            len: bytes.len() as u64,
        });
        Ok(())
    }

    fn push(&mut self, segment: NewSegment) {
        self.written += segment.len;
        self.by_id.insert(segment.id, self.new.len());
        self.new.push(segment);
    }

    /// Stores the data of the file at `path`, padded to whole tar blocks.
    pub(super) fn store_file(
        &mut self,
        path: &Path,
        chunk_len: usize,
    ) -> Result<PublishedFile, PublishError> {
        let file = File::open(path).map_err(PublishError::at(path))?;
        let name = path.file_name().unwrap_or_default();
        self.store_open(&file, name, chunk_len)
    }

    /// Stores the data of an open file with this `name`, padded to whole tar blocks.
    pub(super) fn store_open(
        &mut self,
        mut file: &File,
        name: &OsStr,
        chunk_len: usize,
    ) -> Result<PublishedFile, PublishError> {
        let io = || PublishError::at(name.as_ref());
        let size = file.metadata().map_err(io())?.len();
        let encoding = choose_encoding(file, size).map_err(io())?;
        let mut segment = self.begin()?;
        let mut content = Vec::with_capacity(chunk_len + 512);
        let mut left = size;
        while left > 0 {
            // A pack may have gigabytes, so the stop is checked for each chunk.
            if self.git.is_stopping() {
                return Err(PublishError::Stopping);
            }
            content.clear();
            let wanted = left.min(chunk_len as u64);
            let read = (&mut file)
                .take(wanted)
                .read_to_end(&mut content)
                .map_err(io())? as u64;
            if read < wanted {
                return Err(io()(std::io::ErrorKind::UnexpectedEof.into()));
            }
            left -= read;
            // The padding is part of the last chunk, so that the segment is the same in all
            // archives.
            if left == 0 {
                content.resize(content.len() + padding_len(size), 0);
            }
            segment.push_chunk(&content, encoding)?;
        }
        self.finish(segment, &name.to_string_lossy(), size)
    }

    /// Returns the temporary file of a segment that was written here, or `None` for any other
    /// segment.
    pub(super) fn path_of(&self, id: SegmentId) -> Option<&Path> {
        let index = *self.by_id.get(&id)?;
        self.new.get(index).map(|segment| segment.file.as_path())
    }

    /// Returns how many bytes of segments were written since the last call.
    pub(super) fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// Returns all segments that were written.
    pub(super) fn into_new(self) -> Vec<NewSegment> {
        self.new
    }
}

impl SegmentFile {
    pub(super) fn push_chunk(
        &mut self,
        content: &[u8],
        encoding: ChunkEncoding,
    ) -> Result<(), PublishError> {
        let (chunk, stored) = encode_chunk(content, encoding)?;
        self.file
            .write_all(&stored)
            .map_err(PublishError::at(&self.path))?;
        self.writer.push_chunk(chunk);
        Ok(())
    }

    pub(super) fn push_entry(&mut self, entry: Entry) {
        self.writer.push_entry(entry);
    }

    /// Returns the length of the content so far, in bytes.
    pub(super) fn content_len(&self) -> u64 {
        self.writer.content_len()
    }
}

/// Compresses samples of a file. Returns the encoding of its chunks: raw if zstd saves too little.
fn choose_encoding(file: &File, size: u64) -> std::io::Result<ChunkEncoding> {
    const SAMPLES: u64 = 8;
    const SAMPLE_LEN: u64 = 64 << 10;
    // Samples from the whole file: its beginning alone, such as the header of an image, can
    // mislead. The fast level 3 is enough for this decision.
    let (mut before, mut after) = (0, 0);
    for index in 0..SAMPLES {
        let at = size / SAMPLES * index;
        let len = usize::try_from(SAMPLE_LEN.min(size - at)).unwrap_or(0);
        let mut sample = vec![0; len];
        file.read_exact_at(&mut sample, at)?;
        before += sample.len();
        after += zstd::bulk::compress(&sample, 3)?.len();
    }
    if (after as f64) < before as f64 * (1.0 - MIN_SAVING) {
        Ok(ChunkEncoding::Zstd(ZSTD_LEVEL))
    } else {
        Ok(ChunkEncoding::Raw)
    }
}
