//! The journal of open segments: the process that serves the mount after this one reads in it how
//! the kernel reads each of them.
//!
//! The kernel reads an inode in one mode at a time, and fails an `open` in another with EIO. A
//! killed process can't pass its modes on, so each open is written down before it is answered. The
//! journal is in memory that outlives the process (`memfd_create(2)`), in slots of one length:
//!
//! ```text
//! 1 if used, or 0 │ handle │ id of the backing file, or 0 │ id of the segment
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use cachewfs_format::{Digest, SegmentId};
use parking_lot::Mutex;

/// The length of a number and of the id of a segment in a slot, in bytes.
const NUMBER_LEN: usize = 8;
const ID_LEN: usize = 32;
const SLOT_LEN: usize = 3 * NUMBER_LEN + ID_LEN;

/// The journal of this process.
#[derive(Debug)]
pub(crate) struct OpenJournal {
    file: File,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    /// The slot of each handle.
    used: HashMap<u64, u64>,
    free: Vec<u64>,
}

/// An open segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenSegment {
    pub(crate) handle: u64,
    pub(crate) segment: SegmentId,
    /// The kernel's id of the cache's file, or `None` if this process answers the reads.
    pub(crate) backing: Option<u32>,
}

impl OpenJournal {
    pub(crate) fn create() -> io::Result<Self> {
        Ok(Self {
            file: super::memory()?,
            slots: Mutex::default(),
        })
    }

    /// Returns the file, which another process can read when this one is gone.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes an open down.
    pub(crate) fn note(&self, open: &OpenSegment) {
        let mut slots = self.slots.lock();
        let next = slots.used.len() as u64;
        let slot = slots.free.pop().unwrap_or(next);
        slots.used.insert(open.handle, slot);
        let mut bytes = Vec::with_capacity(SLOT_LEN);
        let backing = open.backing.map_or(0, u64::from);
        for number in [1, open.handle, backing] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(open.segment.0.as_bytes());
        // It fails only if there is no memory left. Then an open may fail after a crash.
        self.file.write_all_at(&bytes, slot * SLOT_LEN as u64).ok();
    }

    /// Strikes an open out.
    pub(crate) fn forget(&self, handle: u64) {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.used.remove(&handle) {
            slots.free.push(slot);
            let unused = [0; NUMBER_LEN];
            self.file.write_all_at(&unused, slot * SLOT_LEN as u64).ok();
        }
    }
}

/// Returns the opens in the journal of another process.
pub(super) fn read(file: &File) -> io::Result<Vec<OpenSegment>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or_default()];
    file.read_exact_at(&mut bytes, 0)?;
    let (slots, _) = bytes.as_chunks::<SLOT_LEN>();
    Ok(slots.iter().filter_map(open_segment).collect())
}

fn open_segment(slot: &[u8; SLOT_LEN]) -> Option<OpenSegment> {
    let (numbers, id) = slot.split_last_chunk::<ID_LEN>()?;
    let (numbers, _) = numbers.as_chunks::<NUMBER_LEN>();
    let [used, handle, backing] = numbers else {
        return None;
    };
    let backing = u32::try_from(u64::from_ne_bytes(*backing)).ok()?;
    (u64::from_ne_bytes(*used) == 1).then(|| OpenSegment {
        handle: u64::from_ne_bytes(*handle),
        segment: SegmentId(Digest::from_bytes(*id)),
        backing: (backing != 0).then_some(backing),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_reads_the_opens_that_are_left() {
        let journal = OpenJournal::create().unwrap();
        let open = |handle, backing| OpenSegment {
            handle,
            segment: SegmentId(Digest::of(&[1, 2, 3])),
            backing,
        };
        for handle in 0..4 {
            journal.note(&open(handle, None));
        }
        journal.forget(1);
        journal.forget(2);
        journal.forget(7);
        journal.note(&open(9, Some(5)));

        let mut left = read(journal.file()).unwrap();

        left.sort_by_key(|open| open.handle);
        assert_eq!(left, [open(0, None), open(3, None), open(9, Some(5))]);
        assert_eq!(
            journal.file().metadata().unwrap().len(),
            4 * SLOT_LEN as u64
        );
    }
}
