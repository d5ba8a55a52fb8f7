//! The files of one cached segment: its content, and a mark for each chunk of it that is cached.
//!
//! A chunk is in one of three states. Only the last one lets a reader see its bytes:
//!
//! ```text
//! ABSENT ──── store ────────────────────────────► READY
//! MARKED ──── the content matches its mark ─────► READY
//!        └─── it doesn't, or can't be read ─────► ABSENT
//! ```

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use cachewfs_format::SegmentTable;

use super::marks::{MARK_LEN, Marks, mark_of};

/// The chunk isn't cached, or its content didn't match its mark.
const ABSENT: u8 = 0;
/// A mark of an earlier process says that the chunk is cached. It has not been checked yet.
const MARKED: u8 = 1;
/// The chunk is cached: this process wrote it, or compared it with its mark.
const READY: u8 = 2;

/// An open segment of the cache: a sparse file with its content, and a file with its marks.
///
/// Several processes may have it open. All write the same bytes at the same offsets.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    data: File,
    meta: File,
    /// The offset of the marks in the meta file, in bytes.
    marks_at: u64,
    /// Bytes of content that are kept. Tar padding at the end is not.
    len: u64,
    states: Vec<AtomicU8>,
    ready_chunks: AtomicUsize,
}

impl SegmentFile {
    /// Opens the files of a segment. The marks start at offset `marks_at` of the meta file.
    pub(super) fn open(
        data: &Path,
        meta: File,
        marks_at: u64,
        table: &SegmentTable,
        len: u64,
    ) -> io::Result<Self> {
        let data = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(data)?;
        keep_len(&data, table.content_len(), len)?;
        let marks = Marks::read(&meta, marks_at, table.chunks().len())?;
        let state = |index| if marks.has(index) { MARKED } else { ABSENT };
        let states = (0..table.chunks().len())
            .map(|index| AtomicU8::new(state(index)))
            .collect();
        Ok(Self {
            data,
            meta,
            marks_at,
            len,
            states,
            ready_chunks: AtomicUsize::new(0),
        })
    }

    /// Returns the file with the content. It is as long as the file in the snapshot.
    pub(crate) fn data(&self) -> &File {
        &self.data
    }

    /// Returns whether all chunks are cached and checked, so that the kernel may read the file
    /// itself.
    pub(crate) fn is_complete(&self) -> bool {
        // Marks alone don't count. The kernel checks nothing, so every chunk must be READY.
        self.ready_chunks.load(Ordering::Acquire) == self.states.len()
    }

    /// Returns whether the files were evicted: readers that have them open still read them, but
    /// they leave the disk when they are closed.
    pub(crate) fn is_unlinked(&self) -> bool {
        let is_unlinked = |file: &File| file.metadata().is_ok_and(|file| file.nlink() == 0);
        is_unlinked(&self.meta) || is_unlinked(&self.data)
    }

    /// Returns whether chunk `index` is cached, or an earlier process marked it as cached.
    pub(crate) fn is_marked(&self, index: usize) -> bool {
        self.states
            .get(index)
            .is_some_and(|state| state.load(Ordering::Relaxed) != ABSENT)
    }

    /// Returns whether chunk `index`, whose content is `range`, is cached.
    ///
    /// The first call compares a chunk of an earlier process with its mark.
    pub(crate) fn is_ready(&self, index: usize, range: &Range<u64>) -> bool {
        let Some(state) = self.states.get(index) else {
            return false;
        };
        match state.load(Ordering::Acquire) {
            READY => true,
            MARKED => self.check(index, state, range),
            _ => false,
        }
    }

    fn check(&self, index: usize, state: &AtomicU8, range: &Range<u64>) -> bool {
        let is_right = self.matches_mark(index, range);
        // Two readers may check the chunk at the same time, and a third may store it. Only the swap
        // that succeeds counts the chunk, so `ready_chunks` never counts one twice.
        let next = if is_right { READY } else { ABSENT };
        let swapped = state.compare_exchange(MARKED, next, Ordering::AcqRel, Ordering::Acquire);
        if is_right && swapped.is_ok() {
            self.ready_chunks.fetch_add(1, Ordering::AcqRel);
        }
        is_right
    }

    fn matches_mark(&self, index: usize, range: &Range<u64>) -> bool {
        let content = self.read(range.clone()).ok();
        let mut expected = [0; MARK_LEN];
        let mark = self.meta.read_exact_at(&mut expected, self.mark_at(index));
        mark.is_ok() && content.is_some_and(|content| mark_of(&content) == expected)
    }

    /// Compares chunk `index`, whose content is `range`, with its mark again. Returns whether they
    /// match, or `None` if the chunk isn't cached. A chunk that doesn't match counts as absent.
    pub(crate) fn check_again(&self, index: usize, range: &Range<u64>) -> Option<bool> {
        let state = self.states.get(index)?;
        if state.load(Ordering::Acquire) != READY {
            return self.is_marked(index).then(|| self.is_ready(index, range));
        }
        let is_right = self.matches_mark(index, range);
        if !is_right && state.swap(ABSENT, Ordering::AcqRel) == READY {
            self.ready_chunks.fetch_sub(1, Ordering::AcqRel);
        }
        Some(is_right)
    }

    /// Writes the verified content of chunk `index`, which starts at `offset`, and marks it.
    pub(crate) fn store(&self, index: usize, offset: u64, content: &[u8]) -> io::Result<()> {
        let kept = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let content = content.get(..kept.min(content.len())).unwrap_or_default();
        // There is no `fsync` in between: after a crash, a mark without its content doesn't match.
        self.data.write_all_at(content, offset)?;
        self.meta
            .write_all_at(&mark_of(content), self.mark_at(index))?;
        if let Some(state) = self.states.get(index)
            && state.swap(READY, Ordering::AcqRel) != READY
        {
            self.ready_chunks.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Reads content. `range` is cut at the end of the kept content.
    pub(crate) fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let end = range.end.min(self.len);
        let len = usize::try_from(end.saturating_sub(range.start)).map_err(io::Error::other)?;
        let mut content = vec![0; len];
        self.data.read_exact_at(&mut content, range.start)?;
        Ok(content)
    }

    fn mark_at(&self, index: usize) -> u64 {
        self.marks_at + (index * MARK_LEN) as u64
    }
}

/// Sets the length of a new file, or of one that a crash left with another length.
///
/// Refuses a file that has the length that another archive gives it. The caller then reads
/// uncached.
fn keep_len(data: &File, content_len: u64, len: u64) -> io::Result<()> {
    // Tar pads a file to blocks of 512 bytes. Two archives with this segment may disagree about how
    // much of the last block is padding. A length within that block is therefore another archive's.
    // Cutting the file would change it under a reader who uses that archive.
    const MAX_PADDING: u64 = 511;
    let found = data.metadata()?.len();
    if found == len {
        return Ok(());
    }
    if found > 0 && (content_len.saturating_sub(MAX_PADDING)..=content_len).contains(&found) {
        let reason = "the cached file has the size that another archive gives it";
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    data.set_len(len)
}
