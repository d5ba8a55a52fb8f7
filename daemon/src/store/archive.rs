//! Reading ranges of an archive out of its segments.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;

use cachewfs_format::{ArchiveLayout, RepoName, SegmentRef};

use super::{DiskStore, StoreError};
use crate::read_now::read_now;

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

    /// Fills `into` with the bytes of the archive from `start` on; blocks.
    pub(crate) fn read(&self, start: u64, into: &mut [u8]) -> Result<(), StoreError> {
        self.read_by(start, into, |file, offset, part| {
            file.read_exact_at(part, offset)
        })
    }

    /// The same if it needs no waiting; tells whether it was so.
    pub(crate) fn read_now(&self, start: u64, into: &mut [u8]) -> bool {
        let read = |file: &File, offset, part: &mut [u8]| {
            let is_read = read_now(file, offset, part);
            is_read.then_some(()).ok_or(ErrorKind::WouldBlock.into())
        };
        self.read_by(start, into, read).is_ok()
    }

    fn read_by(
        &self,
        start: u64,
        into: &mut [u8],
        read: impl Fn(&File, u64, &mut [u8]) -> std::io::Result<()>,
    ) -> Result<(), StoreError> {
        let mut rest = into;
        let mut at = start;
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
            read(&file, offset, part).map_err(|source| match source.kind() {
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
        Ok(())
    }
}
