//! [`Archive`]: reads ranges of an archive out of its segments.

use std::ops::Range;

use cachewfs_format::{ArchiveLayout, RepoName, SegmentRef};

use super::key::Key;
use super::objects::{DirectUrl, Extent};
use super::{Store, StoreError, Tiers};

/// The bytes of one archive, or of a single segment. They are immutable, so all reads see one
/// revision.
#[derive(Debug)]
pub struct Archive {
    store: Store,
    repo: RepoName,
    segments: Vec<SegmentRef>,
    /// The offset of each segment in the archive, and at last the end of the archive.
    starts: Vec<u64>,
}

/// A range of one segment, to be read.
struct Part<'a> {
    key: Key,
    /// Within the segment.
    offset: u64,
    into: &'a mut [u8],
}

impl Archive {
    pub fn new(store: Store, repo: RepoName, layout: &ArchiveLayout) -> Self {
        let segments = layout.segments.iter().copied().chain([layout.tail]);
        Self::of_segments(store, repo, segments.collect())
    }

    /// Returns an archive of a single segment.
    pub fn of_segment(store: Store, repo: RepoName, segment: SegmentRef) -> Self {
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

    /// Returns whether the archive begins with these segments.
    pub fn starts_with(&self, segments: &[SegmentRef]) -> bool {
        self.segments.starts_with(segments)
    }

    /// Fills `into` with the bytes of the archive from `start` on.
    pub async fn read(&self, start: u64, into: &mut [u8]) -> Result<(), StoreError> {
        let objects = self.store.nearest();
        for Part { key, offset, into } in self.parts(start, into)? {
            objects.read_at(&key, offset, into).await?;
        }
        Ok(())
    }

    /// Fills `into` like [`Archive::read`] if no waiting is necessary. Returns whether it did.
    pub fn read_now(&self, start: u64, into: &mut [u8]) -> bool {
        let parts = self.parts(start, into);
        parts.is_ok_and(|parts| {
            let mut parts = parts.into_iter();
            parts.all(|part| {
                let Part { key, offset, into } = part;
                self.store.tiers.read_now(&key, offset, into)
            })
        })
    }

    /// Returns whether the store is a directory.
    pub fn is_on_disk(&self) -> bool {
        matches!(self.store.tiers, Tiers::Directory(_))
    }

    /// Fetches `range` into the local tiers.
    pub async fn fetch_local(&self, range: Range<u64>) -> Result<(), StoreError> {
        let wanted = self.extents(range);
        Ok(self.store.tiers.fetch_local(&wanted).await?)
    }

    /// Starts to fetch `range` into the local tiers.
    pub fn fetch_local_soon(&self, range: Range<u64>) {
        self.store.tiers.fetch_local_soon(self.extents(range));
    }

    /// Returns a URL from which a client may read `range` directly, and the range to request from
    /// that URL. Returns `None` unless `range` is within one segment, because a URL is for one
    /// object.
    pub async fn direct(&self, range: Range<u64>) -> Option<(DirectUrl, Range<u64>)> {
        let [wanted] = <[Extent; 1]>::try_from(self.extents(range)).ok()?;
        let url = self.store.tiers.direct(&wanted).await?;
        Some((url, wanted.range))
    }

    /// Returns the ranges of segments that make up `range`.
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

    /// Splits `into`, which begins at `start` in the archive, at the ends of segments.
    fn parts<'a>(&self, start: u64, into: &'a mut [u8]) -> Result<Vec<Part<'a>>, StoreError> {
        let mut parts = Vec::new();
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
            at += part.len() as u64;
            parts.push(Part {
                key: Key::segment(&shelf, segment.id),
                offset,
                into: part,
            });
            rest = next;
            index += 1;
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use cachewfs_format::{Digest, SegmentId};
    use proptest::prelude::*;

    use super::*;
    use crate::DiskTier;

    /// Returns an archive of segments with these lengths, none of which is stored.
    fn archive(directory: &std::path::Path, lens: &[u64]) -> Archive {
        let disk = DiskTier::create(directory, &directory.join("tmp")).unwrap();
        let repo = RepoName::parse("example.com/a").unwrap();
        let segments = lens.iter().enumerate().map(|(index, &len)| SegmentRef {
            id: SegmentId(Digest::of(&index.to_le_bytes())),
            len,
        });
        Archive::of_segments(Store::new(disk), repo, segments.collect())
    }

    proptest! {
        #[test]
        fn extents_are_the_range_cut_at_the_ends_of_segments(
            lens in prop::collection::vec(1_u64..50, 1..6), start in 0_u64..200, len in 1_u64..100,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let archive = archive(directory.path(), &lens);
            let size: u64 = lens.iter().sum();
            let (start, end) = (start.min(size - 1), (start + len).min(size));
            prop_assume!(start < end);

            let extents = archive.extents(start..end);

            let mut at = start;
            for extent in &extents {
                let index = archive
                    .segments
                    .iter()
                    .position(|segment| extent.key == Key::segment(&extent.key.shelf, segment.id));
                let begin = archive.starts[index.unwrap()];
                prop_assert_eq!(begin + extent.range.start, at);
                prop_assert!(extent.range.start < extent.range.end);
                prop_assert!(extent.range.end <= extent.len);
                at = begin + extent.range.end;
            }
            prop_assert_eq!(at, end);
        }
    }

    #[test]
    fn a_range_within_one_segment_is_one_extent() {
        let directory = tempfile::tempdir().unwrap();
        let archive = archive(directory.path(), &[10, 1, 20]);
        let count = |range| archive.extents(range).len();

        for inside in [0..10, 0..1, 9..10, 10..11, 11..31, 30..31] {
            assert_eq!(count(inside.clone()), 1, "{inside:?}");
        }
        for across in [9..11, 0..31, 10..12] {
            assert!(count(across.clone()) > 1, "{across:?}");
        }
        assert_eq!(archive.extents(13..20)[0].range, 2..9);
    }
}
