//! A file that one task writes and several read while it grows, of which at most a window is on disk.
//!
//! ```text
//! 0 ······ freed ═════ slowest reader ═════ fastest ═════ written
//!                 └─────────── at most `window` ───────────┘
//! ```
//!
//! As long as all of it fits into the window, new readers may join. Then what all have read is given
//! back to the disk, and the writer waits for the slowest.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tokio::sync::watch;

/// What a reader takes at once, in bytes.
const BLOCK_LEN: u64 = 64 << 10;
/// So much is given back to the disk at once, in bytes.
const FREE_LEN: u64 = 1 << 20;

/// Why a spool can't be written to its end, or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolError {
    #[error("nobody reads it any more")]
    Abandoned,
    #[error("what is written to it broke off")]
    Broken,
    #[error("its file failed")]
    Io(#[from] std::io::Error),
    #[error("a task of the daemon failed")]
    Task(#[from] tokio::task::JoinError),
}

/// The file and how far all are.
#[derive(Debug)]
pub(super) struct Spool {
    file: Arc<File>,
    window: u64,
    state: Mutex<SpoolState>,
    /// Sent when there is more to read, or no more will come.
    grown: watch::Sender<()>,
    /// Sent when a reader has moved on or gone.
    taken: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct SpoolState {
    written: u64,
    freed: u64,
    end: Option<SpoolEnd>,
    /// Where each reader is.
    readers: HashMap<u64, u64>,
    next_reader: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpoolEnd {
    Whole,
    Broken,
}

/// One reader; others don't wait for it once it is dropped.
#[derive(Debug)]
pub(super) struct SpoolReader {
    spool: Arc<Spool>,
    id: u64,
    grown: watch::Receiver<()>,
}

impl Spool {
    /// Creates a spool in `tmp`, and its first reader.
    pub(super) fn create(tmp: &Path, window: u64) -> std::io::Result<(Arc<Self>, SpoolReader)> {
        let spool = Arc::new(Self {
            file: Arc::new(tempfile::tempfile_in(tmp)?),
            window,
            state: Mutex::default(),
            grown: watch::Sender::new(()),
            taken: watch::Sender::new(()),
        });
        let reader = spool.add_reader(&mut spool.lock());
        Ok((spool, reader))
    }

    /// A reader from the beginning on; `None` if that is gone, or the spool is given up.
    pub(super) fn join(self: &Arc<Self>) -> Option<SpoolReader> {
        let mut state = self.lock();
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

    /// Appends `bytes`, once the readers are near enough.
    pub(super) async fn write(&self, bytes: Bytes) -> Result<(), SpoolError> {
        let len = bytes.len() as u64;
        let mut taken = self.taken.subscribe();
        let at = loop {
            taken.borrow_and_update();
            if let Some(at) = self.room_for(len)? {
                break at;
            }
            // The sender is in `self`.
            taken.changed().await.ok();
        };
        let file = Arc::clone(&self.file);
        tokio::task::spawn_blocking(move || file.write_all_at(&bytes, at)).await??;
        self.lock().written = at + len;
        self.grown.send_replace(());
        Ok(())
    }

    /// Where the next `len` bytes go, if there is room for them.
    fn room_for(&self, len: u64) -> Result<Option<u64>, SpoolError> {
        let mut state = self.lock();
        let slowest = *state.readers.values().min().ok_or(SpoolError::Abandoned)?;
        let end = state.written + len;
        if end - state.freed > self.window && slowest - state.freed >= FREE_LEN {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let len = slowest - state.freed;
            match fallocate(&*self.file, flags, state.freed, len) {
                // A filesystem without holes keeps all of it until the last reader is done.
                Err(Errno::OPNOTSUPP) => {}
                freed => freed.map_err(std::io::Error::from)?,
            }
            state.freed = slowest;
        }
        // A reader that has all gets more, however small the window is.
        let has_room = end - state.freed <= self.window.max(FREE_LEN + len);
        Ok(has_room.then_some(state.written))
    }

    /// No more will come, and what is there is all.
    pub(super) fn finish(&self) {
        self.end(SpoolEnd::Whole);
    }

    /// No more will come; readers learn that it is not all, unless it is finished.
    pub(super) fn give_up(&self) {
        self.end(SpoolEnd::Broken);
    }

    fn end(&self, end: SpoolEnd) {
        self.lock().end.get_or_insert(end);
        self.grown.send_replace(());
    }

    /// Waits until nobody reads it any more.
    pub(super) async fn abandoned(&self) {
        let mut taken = self.taken.subscribe();
        loop {
            taken.borrow_and_update();
            if self.lock().readers.is_empty() {
                return;
            }
            taken.changed().await.ok();
        }
    }

    fn lock(&self) -> MutexGuard<'_, SpoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpoolReader {
    /// The next bytes; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, SpoolError> {
        let (at, len) = loop {
            self.grown.borrow_and_update();
            {
                let state = self.spool.lock();
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
            // The sender is in the spool.
            self.grown.changed().await.ok();
        };
        let file = Arc::clone(&self.spool.file);
        let read = move || {
            let mut block = vec![0; usize::try_from(len).unwrap_or(0)];
            file.read_exact_at(&mut block, at)?;
            Ok::<_, std::io::Error>(block)
        };
        let block = tokio::task::spawn_blocking(read).await??;
        self.spool.lock().readers.insert(self.id, at + len);
        self.spool.taken.send_replace(());
        Ok(Some(block.into()))
    }
}

impl Drop for SpoolReader {
    fn drop(&mut self) {
        self.spool.lock().readers.remove(&self.id);
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
    async fn all_readers_get_all_whenever_they_join() {
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
    async fn the_writer_stays_within_the_window_of_the_slowest() {
        let (spool, mut reader) = create(3 << 20);
        let slow = spool.join().unwrap();
        let writer = Arc::clone(&spool);
        let writing = tokio::spawn(async move {
            for number in 0..40 {
                writer.write(piece(number)).await.unwrap();
            }
            writer.finish();
        });

        // As much as fits into the window comes, and no more.
        while spool.lock().written + 300_000 <= 3 << 20 {
            tokio::task::yield_now().await;
        }
        let held = tokio::time::timeout(Duration::from_millis(50), read_all(&mut reader)).await;
        assert!(held.is_err(), "the writer went on without the slow reader");
        assert!(spool.lock().written <= 3 << 20);
        drop(slow);
        read_all(&mut reader).await.unwrap();

        writing.await.unwrap();
        assert_eq!(spool.lock().written, 40 * 300_000);
        assert!(spool.join().is_none(), "the beginning is gone");
        let on_disk = std::os::unix::fs::MetadataExt::blocks(&spool.file.metadata().unwrap());
        assert!(on_disk * 512 <= 4 << 20, "{on_disk} blocks");
    }

    #[tokio::test]
    async fn what_broke_off_is_not_taken_for_whole_and_not_joined() {
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
    async fn nobody_joins_what_all_have_left() {
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
