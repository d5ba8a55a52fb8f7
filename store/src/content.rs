//! Reads the content of segments back and verifies it.

use std::io::Write;
use std::ops::Range;

use cachewfs_format::{
    PublishedFile, RepoName, SegmentRef, SegmentTable, TocSegment, decode_chunk,
};

use super::key::{Key, Object};
use super::objects::{Extent, Objects};
use super::{Store, StoreError, TierError};

/// How many bytes ahead a segment is fetched that is read from beginning to end.
const READ_AHEAD: u64 = 32 << 20;

/// A segment and the length of its table, which is at its end.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    pub segment: SegmentRef,
    pub table_len: u32,
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

impl Store {
    /// Writes the first `size` bytes of a segment's content to `to`. Each chunk is verified before
    /// it is written. Returns the table.
    ///
    /// Decodes and writes on the thread that polls it, so it is for [`wait`](crate::wait).
    pub async fn copy_content(
        &self,
        repo: &RepoName,
        stored: impl Into<Stored>,
        (size, to): (u64, &mut impl Write),
    ) -> Result<SegmentTable, StoreError> {
        let Stored { segment, table_len } = stored.into();
        let key = Key::segment(&self.shelf(repo), segment.id);
        let reader = SegmentReader::of(self, &key).await?;
        let soon = |start: u64| {
            let range = start..segment.len.min(start + READ_AHEAD);
            let (key, len) = (key.clone(), segment.len);
            self.tiers
                .fetch_local_soon(vec![Extent { key, len, range }]);
        };
        let frame = segment.len.saturating_sub(table_len.into())..segment.len;
        let decode_table = |frame: &[u8]| SegmentTable::decode(segment.id, frame);
        let table = reader.read(frame, decode_table).await?;
        let mut left = size;
        for (index, chunk) in table.chunks().iter().enumerate() {
            let stored = table.stored_range(index).unwrap_or(0..0);
            soon(stored.start);
            let decode = |stored: &[u8]| decode_chunk(chunk, stored);
            let content = reader.read(stored, decode).await?;
            let wanted = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(content.len());
            let content = content.get(..wanted).unwrap_or_default();
            to.write_all(content).map_err(StoreError::Copy)?;
            left -= content.len() as u64;
        }
        Ok(table)
    }

    /// Starts to fetch whole segments into the local tiers. Does nothing if the store is a
    /// directory.
    pub fn fetch_local_soon(&self, repo: &RepoName, segments: impl Iterator<Item = SegmentRef>) {
        let shelf = self.shelf(repo);
        let wanted: Vec<_> = segments
            .map(|segment| Extent {
                key: Key::segment(&shelf, segment.id),
                len: segment.len,
                range: 0..segment.len,
            })
            .collect();
        self.tiers.fetch_local_soon(wanted);
    }

    /// Moves the damaged segment that `error` is about out of the way, so that a publish can store
    /// it again. Returns `false` if `error` is not about a damaged segment.
    pub async fn set_damaged_aside(&self, error: &StoreError) -> Result<bool, StoreError> {
        let (StoreError::BadSegment { key, .. } | StoreError::Tier(TierError::Truncated { key })) =
            error
        else {
            return Ok(false);
        };
        match key.object {
            Object::Segment(id) => {
                self.damaged.lock().insert(key.shelf.clone());
                self.nearest().set_aside(&key.shelf, id).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// A segment whose ranges are verified when they are read.
struct SegmentReader<'a> {
    store: &'a Store,
    key: &'a Key,
    /// The length of the object. No memory is reserved for a range beyond it.
    len: u64,
}

impl<'a> SegmentReader<'a> {
    async fn of(store: &'a Store, key: &'a Key) -> Result<Self, StoreError> {
        let stat = store.nearest().stat(key).await?;
        let len = stat.map_or(0, |stat| stat.len);
        Ok(Self { store, key, len })
    }

    /// Reads a range and decodes it. If the local copy is damaged, drops it and reads the
    /// authoritative tier. So an error means that the segment is damaged there.
    async fn read<T>(
        &self,
        range: Range<u64>,
        decode: impl Fn(&[u8]) -> cachewfs_format::Result<T>,
    ) -> Result<T, StoreError> {
        // The first read may just have made a copy of a segment that is damaged in the bucket. So
        // only a read of the bucket itself tells which of the two is damaged. If there are no
        // copies to drop, this was such a read.
        let nearest = (self.store.nearest(), self.len);
        let read = self.read_in(nearest, &range, &decode).await;
        let is_damaged = matches!(
            &read,
            Err(StoreError::BadSegment { .. } | StoreError::Tier(TierError::Truncated { .. }))
        );
        if !is_damaged || !self.store.tiers.drop_copies(self.key).await {
            return read;
        }
        let authoritative = self.store.authoritative();
        let len = authoritative.stat(self.key).await?;
        let len = len.map_or(0, |stat| stat.len);
        self.read_in((authoritative, len), &range, &decode).await
    }

    async fn read_in<T>(
        &self,
        (objects, len): (&dyn Objects, u64),
        range: &Range<u64>,
        decode: impl Fn(&[u8]) -> cachewfs_format::Result<T>,
    ) -> Result<T, StoreError> {
        let key = || self.key.boxed();
        if range.end > len || range.start > range.end {
            return Err(TierError::Truncated { key: key() }.into());
        }
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        objects.read_at(self.key, range.start, &mut bytes).await?;
        decode(&bytes).map_err(|source| StoreError::BadSegment { key: key(), source })
    }
}

/// Returns the content of a whole published file, verified.
pub async fn read_file(
    store: &Store,
    repo: &RepoName,
    published: &PublishedFile,
) -> Result<Vec<u8>, StoreError> {
    let mut content = Vec::new();
    let table = store.copy_content(repo, published, (published.size, &mut content));
    let table = table.await?;
    published.check_table(&table).map_err(|source| {
        let key = Key::segment(&store.shelf(repo), published.segment.id);
        StoreError::BadSegment {
            key: key.boxed(),
            source,
        }
    })?;
    Ok(content)
}
