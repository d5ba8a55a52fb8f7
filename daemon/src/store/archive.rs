//! Reading ranges of an archive out of its segments.

use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use cachewfs_format::{ArchiveLayout, RepoName, SegmentRef};

use super::{DiskStore, StoreError};

/// The bytes of one archive: immutable, so whatever is read through it is of one revision.
#[derive(Debug)]
pub(crate) struct Archive {
    store: DiskStore,
    repo: RepoName,
    segments: Vec<SegmentRef>,
    /// Where each segment starts, and at last where all end.
    starts: Vec<u64>,
}

impl Archive {
    pub(crate) fn new(store: DiskStore, repo: RepoName, layout: &ArchiveLayout) -> Self {
        let segments: Vec<_> = layout
            .segments
            .iter()
            .copied()
            .chain([layout.tail])
            .collect();
        let mut end = 0;
        let mut starts = vec![0];
        for segment in &segments {
            end += segment.len;
            starts.push(end);
        }
        Self {
            store,
            repo,
            segments,
            starts,
        }
    }

    /// Whether these are its first segments.
    pub(crate) fn starts_with(&self, segments: &[SegmentRef]) -> bool {
        self.segments.starts_with(segments)
    }

    /// Reads the bytes of `range`, half-open and within the archive; blocks.
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        let mut bytes = vec![0; len];
        let mut rest = bytes.as_mut_slice();
        let mut at = range.start;
        let mut index = self
            .starts
            .partition_point(|&start| start <= at)
            .saturating_sub(1);
        while !rest.is_empty() {
            let (Some(segment), Some(start)) = (self.segments.get(index), self.starts.get(index))
            else {
                let path = self.store.directory(&self.repo);
                return Err(StoreError::Truncated { path });
            };
            let offset = at - start;
            let left = usize::try_from(segment.len.saturating_sub(offset)).unwrap_or(usize::MAX);
            let (part, next) = rest.split_at_mut(left.min(rest.len()));
            let path = || self.store.segment_path(&self.repo, segment.id);
            let file = self.store.open_segment(&self.repo, segment.id)?;
            file.read_exact_at(part, offset)
                .map_err(|source| match source.kind() {
                    ErrorKind::UnexpectedEof => StoreError::Truncated { path: path() },
                    _ => StoreError::Io {
                        path: path(),
                        source,
                    },
                })?;
            self.store.reads().count.add(1);
            self.store.reads().bytes.add(part.len() as u64);
            at += part.len() as u64;
            rest = next;
            index += 1;
        }
        Ok(bytes)
    }
}
