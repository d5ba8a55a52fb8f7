//! Reading ranges of an archive out of its segments.

use std::ops::Range;

use cachewfs_format::{ArchiveLayout, RepoName, SegmentRef};

use super::key::Key;
use super::tier::Extent;
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

    /// Whether all of it comes from a directory.
    pub(crate) fn is_on_disk(&self) -> bool {
        self.store.tier().is_directory()
    }

    /// Waits until `range` can be read without the network.
    pub(crate) async fn bring(&self, range: Range<u64>) -> Result<(), StoreError> {
        let wanted = self.extents(range);
        Ok(self.store.tier().bring(&wanted).await?)
    }

    /// Begins to bring `range`; looks at the disk.
    pub(crate) fn bring_soon(&self, range: Range<u64>) {
        self.store.tier().bring_soon(&self.extents(range));
    }

    /// The parts of segments that make up `range`.
    fn extents(&self, range: Range<u64>) -> Vec<Extent> {
        let shelf = self.store.shelf(&self.repo);
        let first = self.starts.partition_point(|&start| start <= range.start);
        let segments = self.segments.iter().zip(&self.starts);
        let touched = segments
            .skip(first.saturating_sub(1))
            .take_while(|&(_, &start)| start < range.end);
        let extent = |(segment, &start): (&SegmentRef, &u64)| Extent {
            key: Key::segment(&shelf, segment.id),
            len: segment.len,
            range: range.start.saturating_sub(start)..segment.len.min(range.end - start),
        };
        touched.map(extent).collect()
    }

    fn read_by(
        &self,
        start: u64,
        into: &mut [u8],
        read: impl Fn(&Key, u64, &mut [u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut rest = into;
        let mut at = start;
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
            at += part.len() as u64;
            rest = next;
            index += 1;
        }
        Ok(())
    }
}
