//! The files of a segment in the cache: which chunks they have, and when they are open.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use cachewfs_base::seconds_since_epoch;
use cachewfs_format::SegmentTable;
use tracing::debug;

use super::{ReadError, Segment};
use crate::cache::SegmentFile;

impl Segment {
    /// Returns whether all chunks are in the cache. The first call reads them from the disk, to
    /// compare each with its checksum.
    pub(crate) fn is_cached(&self) -> bool {
        self.has(0..self.record.content_len)
    }

    /// Fails with the reason unless the chunks of `range` of the content are in the cache.
    pub(crate) fn check_kept(&self, range: Range<u64>) -> Result<(), ReadError> {
        if self.has(range) {
            return Ok(());
        }
        let failure = self.backend.cache.failures().present();
        // If the disk has not failed, another mount or a full cache has evicted the chunks.
        Err(failure.map_or(ReadError::Evicted, |failure| {
            ReadError::NotKept(failure.error)
        }))
    }

    /// Returns whether the chunks of `range` of the content are in the cache, as
    /// [`Self::is_cached`] does.
    pub(crate) fn has(&self, range: Range<u64>) -> bool {
        if self.is_evicted() {
            self.forget_files();
            return false;
        }
        let Some(table) = self.cached_table() else {
            return false;
        };
        let Some(file) = self.file(&table) else {
            return false;
        };
        table
            .chunks_in(range)
            .all(|chunk| file.is_ready(chunk.index, &chunk.content))
    }

    /// Compares each cached chunk with its checksum, and forgets those that differ. Returns the
    /// bytes of content of both kinds.
    pub(crate) fn check_again(&self) -> (u64, u64) {
        let Some(table) = self.cached_table() else {
            return (0, 0);
        };
        let Some(file) = self.file(&table) else {
            return (0, 0);
        };
        let (mut right_bytes, mut wrong_bytes) = (0, 0);
        for chunk in table.placed_chunks() {
            let len = chunk.content.end - chunk.content.start;
            match file.check_again(chunk.index, &chunk.content) {
                Some(true) => right_bytes += len,
                Some(false) => wrong_bytes += len,
                None => {}
            }
        }
        (right_bytes, wrong_bytes)
    }

    /// Returns the cache files of the segment, opening them if need be. Returns `None` if they
    /// can't be opened; the segment is then read uncached.
    pub(crate) fn file(&self, table: &SegmentTable) -> Option<Arc<SegmentFile>> {
        let cache = &self.backend.cache;
        let mut file = self.file.lock();
        if let Some(file) = file.upgrade() {
            cache.keep_open(&file);
            return Some(file);
        }
        let (id, len) = (self.record.id, self.len());
        let open = || cache.open_segment(id, table, self.record.table_len, len);
        let opened = open().or_else(|error| match error.kind() {
            // Another mount on this cache has evicted the segment.
            ErrorKind::NotFound => self.store_table(table).and_then(|()| open()),
            _ => Err(error),
        });
        match opened {
            Ok(opened) => {
                *file = Arc::downgrade(&opened);
                Some(opened)
            }
            // It concerns this segment only, and is so for as long as the file is cached.
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                debug!(segment = %id, %error, "Reading segment {id} uncached: {error}");
                None
            }
            Err(error) => {
                cache.failures().note(error);
                None
            }
        }
    }

    /// Notes that a reader reads or opens the segment now.
    pub(crate) fn note_use(&self) {
        self.used_at.store(seconds_since_epoch(), Ordering::Relaxed);
    }

    /// Writes the time of the last use to the cache, where eviction looks at it.
    pub(super) fn save_use(&self) {
        let used_at = self.used_at.swap(0, Ordering::Relaxed);
        if used_at > 0 {
            let used_at = UNIX_EPOCH + Duration::from_secs(used_at);
            self.backend.cache.touch(self.record.id, used_at);
        }
    }

    /// Returns the cache files, or `None` if they have not been opened yet.
    pub(crate) fn opened_file(&self) -> Option<Arc<SegmentFile>> {
        self.file.lock().upgrade()
    }

    /// Returns whether all chunks are known to be in the cache and verified. Doesn't look at the
    /// disk.
    pub(crate) fn is_complete_on_disk(&self) -> bool {
        self.opened_file().is_some_and(|file| file.is_complete())
    }

    /// Returns whether the kernel has the file open and reads it without this process.
    pub(super) fn is_passed_through(&self) -> bool {
        let opens = self.opens.lock();
        opens.backing.is_some()
    }

    /// Closes the cache files after they were evicted. The next read opens new ones.
    pub(crate) fn forget_files(&self) {
        let mut file = self.file.lock();
        if let Some(evicted) = std::mem::take(&mut *file).upgrade() {
            self.backend.cache.close(&evicted);
        }
    }

    fn store_table(&self, table: &SegmentTable) -> io::Result<()> {
        let frame = table.to_frame().map_err(io::Error::other)?;
        self.backend.cache.store_table(self.record.id, &frame)
    }

    /// Returns whether another mount on this cache has evicted the files that are open here.
    pub(super) fn is_evicted(&self) -> bool {
        self.opened_file().is_some_and(|file| file.is_unlinked())
    }

    /// Returns how many stored bytes the cached chunks have. Reads marks from the disk if the files
    /// are not open, and compares no checksums.
    pub(crate) fn cached_bytes(&self) -> u64 {
        let stored_lens = |table: &SegmentTable, is_marked: &dyn Fn(usize) -> bool| {
            let chunks = table.chunks().iter().enumerate();
            chunks
                .filter(|&(index, _)| is_marked(index))
                .map(|(_, chunk)| u64::from(chunk.stored_len))
                .sum()
        };
        // Without its table, a segment whose chunks are all there would still miss some bytes.
        let whole = |table: &SegmentTable, cached: u64| {
            let chunks = self.record.stored_len - u64::from(self.record.table_len);
            if cached >= chunks || table.chunks().is_empty() {
                self.record.stored_len
            } else {
                cached
            }
        };
        if self.is_complete_on_disk() {
            return self.record.stored_len;
        }
        if let Some(file) = self.opened_file()
            && let Some(table) = self.cached_table()
        {
            return whole(&table, stored_lens(&table, &|index| file.is_marked(index)));
        }
        let cache = &self.backend.cache;
        cache.marked_bytes(self.record.id, &self.marked_bytes, |marks| {
            let Some(table) = self.cached_table() else {
                return 0;
            };
            whole(&table, stored_lens(&table, &|index| marks.has(index)))
        })
    }
}
