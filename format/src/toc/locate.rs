//! Finds the TOC in the last bytes of an archive.

use std::ops::Range;

use super::table::check_len;
use super::{SECTION, TRAILER_LEN, TRAILER_MAGIC, Toc};
use crate::wire::{FieldReader, SKIPPABLE_HEADER_LEN};
use crate::{Error, Result, SeekTable};

/// The result of [`Toc::locate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TocLocation {
    /// The TOC's frame is at this half-open range of the given bytes.
    Found(Range<usize>),
    /// The given bytes don't have the whole TOC. The caller has to read this many bytes from the
    /// end of the archive, and try again. They have the whole TOC, or at least its length.
    NeedsTail(u64),
}

impl Toc {
    /// Finds the TOC in `tail`, the last bytes of an archive of `archive_len` bytes.
    ///
    /// A caller needs at most three tries, whatever the length of the first `tail`, which has at
    /// least the nine bytes of the seek table's footer.
    pub fn locate(tail: &[u8], archive_len: u64) -> Result<TocLocation> {
        let seek_len = SeekTable::frame_len(tail)?;
        let needs_tail = |len: u64| {
            if len > archive_len {
                return Err(Error::Truncated { section: SECTION });
            }
            Ok(TocLocation::NeedsTail(len))
        };
        let trailer_len = u64::try_from(TRAILER_LEN).unwrap_or(0);
        let before_seek = usize::try_from(seek_len)
            .ok()
            .and_then(|len| tail.len().checked_sub(len));
        let Some(end) = before_seek.filter(|&end| end >= TRAILER_LEN) else {
            // The length of the TOC is still unknown. 64 KiB are usually enough, so that the next
            // try is the last.
            let guess = seek_len.saturating_add(64 << 10).min(archive_len);
            return needs_tail(guess.max(seek_len.saturating_add(trailer_len)));
        };
        let trailer = tail
            .get(end.saturating_sub(TRAILER_LEN)..end)
            .unwrap_or_default();
        let mut reader = FieldReader::new(trailer, SECTION);
        let len = reader.u32()?;
        if reader.u32()? != TRAILER_MAGIC {
            return Err(reader.malformed("its trailer is missing in front of the seek table"));
        }
        let payload_len = usize::try_from(len).unwrap_or(usize::MAX);
        check_len(payload_len)?;
        let frame_len = payload_len.saturating_add(SKIPPABLE_HEADER_LEN);
        match end.checked_sub(frame_len) {
            Some(start) => Ok(TocLocation::Found(start..end)),
            None => {
                needs_tail(seek_len.saturating_add(u64::try_from(frame_len).unwrap_or(u64::MAX)))
            }
        }
    }
}
