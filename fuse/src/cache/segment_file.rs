//! The content of one segment on disk, and which chunks of it are there.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use cachewfs_format::SegmentTable;

/// Nothing is there, or it is not to be believed.
const ABSENT: u8 = 0;
/// A mark from an earlier process says that it is there.
const MARKED: u8 = 1;
/// It is there: written, or compared with its mark, by this process.
const READY: u8 = 2;
/// Length of a mark in the file, in bytes.
const MARK_LEN: usize = 8;

/// The content of a segment, in a sparse file, and a mark for each chunk that is in it.
///
/// Several processes may have it open: all write the same bytes to the same places.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    data: File,
    meta: File,
    /// Where the marks start in the meta file, in bytes.
    marks_at: u64,
    /// Bytes of content that are kept: padding of the tar at the end is not.
    len: u64,
    states: Vec<AtomicU8>,
    ready_chunks: AtomicUsize,
}

impl SegmentFile {
    /// Opens the files of a segment; `marks_at` is where the meta file's marks start.
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
        let mut marks = vec![0; table.chunks().len() * MARK_LEN];
        let read = read_up_to(&meta, &mut marks, marks_at)?;
        let states = marks
            .chunks(MARK_LEN)
            .enumerate()
            .map(|(index, mark)| {
                let is_marked = index * MARK_LEN < read && mark.iter().any(|&byte| byte != 0);
                AtomicU8::new(if is_marked { MARKED } else { ABSENT })
            })
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

    /// The file with the content; its length is that of the file in the snapshot.
    pub(crate) fn data(&self) -> &File {
        &self.data
    }

    /// Whether all chunks are there.
    pub(crate) fn is_complete(&self) -> bool {
        self.ready_chunks.load(Ordering::Acquire) == self.states.len()
    }

    /// Whether chunk `index` is there, or an earlier process says so.
    pub(crate) fn is_marked(&self, index: usize) -> bool {
        self.states
            .get(index)
            .is_some_and(|state| state.load(Ordering::Relaxed) != ABSENT)
    }

    /// Whether chunk `index`, whose content is `range`, is there. What an earlier process left is
    /// compared with its mark the first time.
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
        let content = self.read(range.clone()).ok();
        let mut expected = [0; MARK_LEN];
        let has_mark = self
            .meta
            .read_exact_at(&mut expected, self.mark_at(index))
            .is_ok();
        let is_right = has_mark && content.is_some_and(|content| mark_of(&content) == expected);
        let next = if is_right { READY } else { ABSENT };
        let swapped = state.compare_exchange(MARKED, next, Ordering::AcqRel, Ordering::Acquire);
        if is_right && swapped.is_ok() {
            self.ready_chunks.fetch_add(1, Ordering::AcqRel);
        }
        is_right
    }

    /// Writes the verified content of chunk `index`, which starts at `offset`.
    pub(crate) fn store(&self, index: usize, offset: u64, content: &[u8]) -> io::Result<()> {
        let kept = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let content = content.get(..kept.min(content.len())).unwrap_or_default();
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

    /// Reads content; `range` is cut at the end of what is kept.
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

/// Gives a new file, or what a crash left of one, its length.
///
/// Refuses one that has another length because another archive ends the file elsewhere in the last
/// block of its content: somebody may be reading it, and the archives can't both be right.
fn keep_len(data: &File, content_len: u64, len: u64) -> io::Result<()> {
    const MAX_PADDING: u64 = 511;
    let found = data.metadata()?.len();
    if found == len {
        return Ok(());
    }
    if found > 0 && (content_len.saturating_sub(MAX_PADDING)..=content_len).contains(&found) {
        let reason = "another archive gives the file another size";
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    data.set_len(len)
}

/// The first bytes of the content's digest; never zero, which means that nothing is there.
fn mark_of(content: &[u8]) -> [u8; MARK_LEN] {
    let digest = blake3::hash(content);
    let mut mark = [0; MARK_LEN];
    mark.copy_from_slice(&digest.as_bytes()[..MARK_LEN]);
    mark[0] |= 1;
    mark
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
