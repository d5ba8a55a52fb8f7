//! A file that one task writes and several readers follow, with a limit on the space it uses on
//! disk.
//!
//! ```text
//! 0 ······ freed ═════ slowest reader ═════ fastest ═════ written
//!                 └─────────── at most `window` ───────────┘
//! ```
//!
//! While the whole file fits into the window, new readers may join. Then the part that all readers
//! have read is freed on the disk, no reader can join any more, and the writer waits for the
//! slowest reader.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tokio::sync::watch;

/// How many bytes a reader reads at a time.
const BLOCK_LEN: u64 = 64 << 10;
/// At least this many bytes are freed on the disk at a time.
const FREE_LEN: u64 = 1 << 20;

/// The reason why a spool can't be written to its end, or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolError {
    #[error("all readers of the spool are gone")]
    Abandoned,
    #[error("the answer broke off before it was complete")]
    Broken,
    #[error("can't write or read the spool's file")]
    Io(#[from] std::io::Error),
    #[error("an internal task of the daemon failed")]
    Task(#[from] tokio::task::JoinError),
}

/// A file with one writer and several readers, and the positions of all.
#[derive(Debug)]
pub(super) struct Spool {
    file: Arc<File>,
    window: u64,
    state: Mutex<SpoolState>,
    /// Notifies readers that there are more bytes, or that no more will come.
    grown: watch::Sender<()>,
    /// Notifies the writer that a reader has moved on or gone.
    taken: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct SpoolState {
    written: u64,
    freed: u64,
    end: Option<SpoolEnd>,
    /// The position of each reader, by its id.
    readers: HashMap<u64, u64>,
    next_reader: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpoolEnd {
    Whole,
    Broken,
}

/// A reader. Once it is dropped, the writer no longer waits for it.
#[derive(Debug)]
pub(super) struct SpoolReader {
    spool: Arc<Spool>,
    id: u64,
    grown: watch::Receiver<()>,
}

impl Spool {
    /// Creates a spool with its file in `tmp`, and its first reader.
    pub(super) fn create(tmp: &Path, window: u64) -> std::io::Result<(Arc<Self>, SpoolReader)> {
        let spool = Arc::new(Self {
            file: Arc::new(tempfile::tempfile_in(tmp)?),
            window,
            state: Mutex::default(),
            grown: watch::Sender::new(()),
            taken: watch::Sender::new(()),
        });
        let reader = spool.add_reader(&mut spool.state.lock());
        Ok((spool, reader))
    }

    /// Returns a reader at the beginning, or `None` if the beginning is freed, all readers are
    /// gone, or the answer broke off.
    pub(super) fn join(self: &Arc<Self>) -> Option<SpoolReader> {
        let mut state = self.state.lock();
        let is_open =
            state.freed == 0 && !state.readers.is_empty() && state.end != Some(SpoolEnd::Broken);
        is_open.then(|| self.add_reader(&mut state))
    }

    fn add_reader(self: &Arc<Self>, state: &mut SpoolState) -> SpoolReader {
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, 0);
        SpoolReader {
            spool: Arc::clone(self),
            id,
            grown: self.grown.subscribe(),
        }
    }

    /// Appends `bytes`. First waits until they fit into the window.
    pub(super) async fn write(&self, bytes: Bytes) -> Result<(), SpoolError> {
        let len = bytes.len() as u64;
        let mut taken = self.taken.subscribe();
        // Marked as seen before the check: a reader that moves between the check and the wait ends
        // the wait at once.
        let at = loop {
            taken.borrow_and_update();
            if let Some(at) = self.room_for(len)? {
                break at;
            }
            // Can't fail: the sender is in `self`.
            taken.changed().await.ok();
        };
        let file = Arc::clone(&self.file);
        tokio::task::spawn_blocking(move || file.write_all_at(&bytes, at)).await??;
        self.state.lock().written = at + len;
        self.grown.send_replace(());
        Ok(())
    }

    /// Returns the position of the next `len` bytes, or `None` if they don't fit into the window
    /// yet. Frees what all readers have read.
    fn room_for(&self, len: u64) -> Result<Option<u64>, SpoolError> {
        let mut state = self.state.lock();
        let slowest = *state.readers.values().min().ok_or(SpoolError::Abandoned)?;
        let end = state.written + len;
        if end - state.freed > self.window && slowest - state.freed >= FREE_LEN {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let len = slowest - state.freed;
            match fallocate(&*self.file, flags, state.freed, len) {
                // On a filesystem that can't punch holes, the whole file stays until it is closed.
                Err(Errno::OPNOTSUPP) => {}
                freed => freed.map_err(std::io::Error::from)?,
            }
            state.freed = slowest;
        }
        // At least this much always fits. Otherwise, with a small window, the writer would wait for
        // readers that have read everything and themselves wait for more.
        let has_room = end - state.freed <= self.window.max(FREE_LEN + len);
        Ok(has_room.then_some(state.written))
    }

    /// Marks the file as complete.
    pub(super) fn finish(&self) {
        self.end(SpoolEnd::Whole);
    }

    /// Marks the file as broken off, unless it is complete already: readers get an error after the
    /// last byte.
    pub(super) fn give_up(&self) {
        self.end(SpoolEnd::Broken);
    }

    fn end(&self, end: SpoolEnd) {
        self.state.lock().end.get_or_insert(end);
        self.grown.send_replace(());
    }

    /// Waits until all readers are gone.
    pub(super) async fn abandoned(&self) {
        let mut taken = self.taken.subscribe();
        loop {
            taken.borrow_and_update();
            if self.state.lock().readers.is_empty() {
                return;
            }
            taken.changed().await.ok();
        }
    }
}

impl SpoolReader {
    /// Returns the next bytes, or `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, SpoolError> {
        let (at, len) = loop {
            self.grown.borrow_and_update();
            {
                let state = self.spool.state.lock();
                let at = state.readers.get(&self.id).copied().unwrap_or(0);
                if at < state.written {
                    break (at, BLOCK_LEN.min(state.written - at));
                }
                match state.end {
                    Some(SpoolEnd::Whole) => return Ok(None),
                    Some(SpoolEnd::Broken) => return Err(SpoolError::Broken),
                    None => {}
                }
            }
            // Can't fail: the sender is in the spool.
            self.grown.changed().await.ok();
        };
        let file = Arc::clone(&self.spool.file);
        let read = move || {
            let mut block = vec![0; usize::try_from(len).unwrap_or(0)];
            file.read_exact_at(&mut block, at)?;
            Ok::<_, std::io::Error>(block)
        };
        let block = tokio::task::spawn_blocking(read).await??;
        self.spool.state.lock().readers.insert(self.id, at + len);
        self.spool.taken.send_replace(());
        Ok(Some(block.into()))
    }
}

impl Drop for SpoolReader {
    fn drop(&mut self) {
        self.spool.state.lock().readers.remove(&self.id);
        self.spool.taken.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn create(window: u64) -> (Arc<Spool>, SpoolReader) {
        Spool::create(&std::env::temp_dir(), window).unwrap()
    }

    async fn read_all(reader: &mut SpoolReader) -> Result<Vec<u8>, SpoolError> {
        let mut all = Vec::new();
        while let Some(bytes) = reader.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    fn piece(number: u8) -> Bytes {
        vec![number; 300_000].into()
    }

    #[tokio::test]
    async fn every_reader_gets_the_whole_file() {
        let (spool, mut first) = create(1 << 30);
        spool.write(piece(1)).await.unwrap();
        let mut second = spool.join().unwrap();
        let reading = tokio::spawn(async move { read_all(&mut second).await.unwrap() });

        spool.write(piece(2)).await.unwrap();
        spool.finish();

        let expected = [piece(1), piece(2)].concat();
        assert_eq!(read_all(&mut first).await.unwrap(), expected);
        assert_eq!(reading.await.unwrap(), expected);
    }

    #[tokio::test]
    async fn the_writer_waits_for_the_slowest_reader() {
        let (spool, mut reader) = create(3 << 20);
        let slow = spool.join().unwrap();
        let writer = Arc::clone(&spool);
        let writing = tokio::spawn(async move {
            for number in 0..40 {
                writer.write(piece(number)).await.unwrap();
            }
            writer.finish();
        });

        // The writer writes as much as fits into the window, and no more.
        while spool.state.lock().written + 300_000 <= 3 << 20 {
            tokio::task::yield_now().await;
        }
        let held = tokio::time::timeout(Duration::from_millis(50), read_all(&mut reader)).await;
        assert!(held.is_err(), "the writer went on without the slow reader");
        assert!(spool.state.lock().written <= 3 << 20);
        drop(slow);
        read_all(&mut reader).await.unwrap();

        writing.await.unwrap();
        assert_eq!(spool.state.lock().written, 40 * 300_000);
        assert!(spool.join().is_none(), "the beginning is gone");
        let on_disk = std::os::unix::fs::MetadataExt::blocks(&spool.file.metadata().unwrap());
        assert!(on_disk * 512 <= 4 << 20, "{on_disk} blocks");
    }

    #[tokio::test]
    async fn a_broken_spool_is_an_error_and_cannot_be_joined() {
        let (spool, mut reader) = create(1 << 20);
        spool.write(piece(1)).await.unwrap();
        spool.give_up();

        assert!(matches!(
            read_all(&mut reader).await,
            Err(SpoolError::Broken)
        ));
        assert!(spool.join().is_none());
    }

    #[tokio::test]
    async fn an_abandoned_spool_cannot_be_joined() {
        let (spool, reader) = create(1 << 20);

        drop(reader);

        spool.abandoned().await;
        assert!(spool.join().is_none());
        assert!(matches!(
            spool.write(piece(1)).await,
            Err(SpoolError::Abandoned)
        ));
    }
}
