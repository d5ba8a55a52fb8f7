//! Reading the content of segments back, verified.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use cachewfs_format::{
    PublishedFile, RepoName, SegmentRef, SegmentTable, TocSegment, decode_chunk,
};

use super::{DiskStore, StoreError};

/// A segment, and where its table is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    pub(crate) segment: SegmentRef,
    pub(crate) table_len: u32,
}

impl From<&PublishedFile> for Stored {
    fn from(file: &PublishedFile) -> Self {
        Self {
            segment: file.segment,
            table_len: file.table_len,
        }
    }
}

impl From<&TocSegment> for Stored {
    fn from(segment: &TocSegment) -> Self {
        Self {
            segment: SegmentRef {
                id: segment.id,
                len: segment.stored_len,
            },
            table_len: segment.table_len,
        }
    }
}

impl DiskStore {
    /// Writes the first `size` bytes of a segment's content to `to`, each chunk after it was verified;
    /// gives the table.
    pub(crate) fn copy_content(
        &self,
        repo: &RepoName,
        stored: impl Into<Stored>,
        (size, to): (u64, &mut impl Write),
    ) -> Result<SegmentTable, StoreError> {
        let Stored { segment, table_len } = stored.into();
        let path = self.segment_path(repo, segment.id);
        let file = self.open_segment(repo, segment.id)?;
        let bad = |source| StoreError::BadSegment {
            path: path.clone(),
            source,
        };
        let frame = segment.len.saturating_sub(table_len.into())..segment.len;
        let table = SegmentTable::decode(segment.id, &read(&file, frame, &path)?).map_err(bad)?;
        let mut left = size;
        for (index, chunk) in table.chunks().iter().enumerate() {
            let stored = table.stored_range(index).unwrap_or(0..0);
            let content = decode_chunk(chunk, &read(&file, stored, &path)?).map_err(bad)?;
            let wanted = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(content.len());
            let content = content.get(..wanted).unwrap_or_default();
            to.write_all(content).map_err(StoreError::at(&path))?;
            left -= content.len() as u64;
        }
        Ok(table)
    }

    /// Whether all of `files` are there.
    pub(crate) fn has_all<'a>(
        &self,
        repo: &RepoName,
        files: impl IntoIterator<Item = &'a PublishedFile>,
    ) -> bool {
        let is_there = |file: &PublishedFile| self.segment_path(repo, file.segment.id).is_file();
        files.into_iter().all(is_there)
    }
}

impl StoreError {
    /// Puts the damaged segment that this is about, if it is about one, out of the way, so that a publish
    /// can write it again.
    pub(crate) fn set_damaged_aside(&self) -> std::io::Result<()> {
        match self {
            Self::BadSegment { path, .. } | Self::Truncated { path } => {
                std::fs::rename(path, path.with_extension("damaged"))
            }
            _ => Ok(()),
        }
    }
}

/// Reads a whole published file back, verified.
pub(crate) fn read_file(
    store: &DiskStore,
    repo: &RepoName,
    published: &PublishedFile,
) -> Result<Vec<u8>, StoreError> {
    let mut content = Vec::new();
    let table = store.copy_content(repo, published, (published.size, &mut content))?;
    published.check_table(&table).map_err(|source| {
        let path = store.segment_path(repo, published.segment.id);
        StoreError::BadSegment { path, source }
    })?;
    Ok(content)
}

fn read(file: &File, range: Range<u64>, path: &Path) -> Result<Vec<u8>, StoreError> {
    let path = path.to_owned();
    let end_of_file = file.metadata().map_or(0, |metadata| metadata.len());
    // Nothing is reserved for what isn't there.
    if range.end > end_of_file || range.start > range.end {
        return Err(StoreError::Truncated { path });
    }
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
    match file.read_exact_at(&mut bytes, range.start) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Err(StoreError::Truncated { path })
        }
        Err(source) => Err(StoreError::Io { path, source }),
    }
}
