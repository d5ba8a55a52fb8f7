//! The marks in a meta file: which chunks of a segment are cached, with a checksum of each.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use parking_lot::Mutex;

/// Length of a mark in the file, in bytes.
pub(super) const MARK_LEN: usize = 8;

/// The marks of a segment, as they were read from its meta file.
#[derive(Debug)]
pub(crate) struct Marks(Vec<u8>);

impl Marks {
    /// Reads up to `count` marks, which start at offset `marks_at` of the file.
    pub(super) fn read(meta: &File, marks_at: u64, count: usize) -> io::Result<Self> {
        // The file ends after the last chunk that was stored. The rest counts as absent.
        let len = meta.metadata()?.len().saturating_sub(marks_at);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let mut marks = vec![0; len.min(count.saturating_mul(MARK_LEN))];
        let read = read_up_to(meta, &mut marks, marks_at)?;
        marks.truncate(read);
        Ok(Self(marks))
    }

    /// Returns whether chunk `index` has a mark.
    pub(crate) fn has(&self, index: usize) -> bool {
        let mark = self.0.chunks(MARK_LEN).nth(index);
        mark.is_some_and(|mark| mark.iter().any(|&byte| byte != 0))
    }
}

/// The cached bytes of a segment, as its meta file gave them when it was read last.
#[derive(Debug, Default)]
pub(crate) struct MarkedBytes(Mutex<Option<(ChangeTime, u64)>>);

/// The time at which a file was last changed: seconds and nanoseconds. No program can set it.
type ChangeTime = (i64, i64);

impl MarkedBytes {
    /// Returns the bytes of the chunks that `meta` marks. Calls `count` only if the file has
    /// changed since the last call.
    pub(super) fn of(
        &self,
        meta: &Metadata,
        count: impl FnOnce() -> io::Result<u64>,
    ) -> io::Result<u64> {
        let mut known = self.0.lock();
        let changed_at = (meta.ctime(), meta.ctime_nsec());
        if let Some((at, bytes)) = *known
            && at == changed_at
        {
            return Ok(bytes);
        }
        let bytes = count()?;
        *known = Some((changed_at, bytes));
        Ok(bytes)
    }
}

/// Returns the mark of a chunk: the first bytes of its content's digest, with one bit set.
///
/// So a mark is never zero. Zeros in the file mean that the chunk isn't cached.
pub(super) fn mark_of(content: &[u8]) -> [u8; MARK_LEN] {
    let digest = blake3::hash(content);
    let mut mark = [0; MARK_LEN];
    mark.copy_from_slice(&digest.as_bytes()[..MARK_LEN]);
    mark[0] |= 1;
    mark
}

/// Reads until `buffer` is full or the file ends. Returns the number of bytes read.
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
