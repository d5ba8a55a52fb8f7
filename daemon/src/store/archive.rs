//! Reading ranges of an archive out of its segments.

use cachewfs_format::{ArchiveLayout, RepoName, SegmentRef};

use super::key::Key;
use super::{Store, StoreError};

/// The bytes of one archive, or of a part of one: immutable, so whatever is read through it is of one
/// revision.
#[derive(Debug)]
pub(crate) struct Archive {
    store: Store,
    repo: RepoName,
    segments: Vec<SegmentRef>,
    /// Where each segment starts, and at last where all end.
    starts: Vec<u64>,
}

impl Archive {
    pub(crate) fn new(store: Store, repo: RepoName, layout: &ArchiveLayout) -> Self {
        let segments = layout.segments.iter().copied().chain([layout.tail]);
        Self::of_segments(store, repo, segments.collect())
    }

    /// One segment by itself.
    pub(crate) fn of_segment(store: Store, repo: RepoName, segment: SegmentRef) -> Self {
        Self::of_segments(store, repo, vec![segment])
    }

    fn of_segments(store: Store, repo: RepoName, segments: Vec<SegmentRef>) -> Self {
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
        let tier = self.store.tier();
        self.read_by(start, into, |key, offset, part| {
            Ok(tier.read_at(key, offset, part)?)
        })
    }

    /// The same if it needs no waiting; tells whether it was so.
    pub(crate) fn read_now(&self, start: u64, into: &mut [u8]) -> bool {
        let tier = self.store.tier();
        let read = |key: &Key, offset, part: &mut [u8]| {
            let is_read = tier.read_now(key, offset, part);
            is_read.then_some(()).ok_or(StoreError::BeyondEnd)
        };
        self.read_by(start, into, read).is_ok()
    }

    fn read_by(
        &self,
        start: u64,
        into: &mut [u8],
        read: impl Fn(&Key, u64, &mut [u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut rest = into;
        let (mut at, mut reads) = (start, 0);
        let shelf = self.store.shelf(&self.repo);
        let mut index = self
            .starts
            .partition_point(|&start| start <= at)
            .saturating_sub(1);
        while !rest.is_empty() {
            let (Some(segment), Some(begin)) = (self.segments.get(index), self.starts.get(index))
            else {
                return Err(StoreError::BeyondEnd);
            };
            let offset = at - begin;
            let left = usize::try_from(segment.len.saturating_sub(offset)).unwrap_or(usize::MAX);
            let (part, next) = rest.split_at_mut(left.min(rest.len()));
            read(&Key::segment(&shelf, segment.id), offset, part)?;
            reads += 1;
            at += part.len() as u64;
            rest = next;
            index += 1;
        }
        self.store.reads().count.add(reads);
        self.store.reads().bytes.add(at - start);
        Ok(())
    }
}
