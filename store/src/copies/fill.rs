//! [`Fill`]: a segment that is being fetched, with a temporary file and the state of each part.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use cachewfs_base::read_now;
use parking_lot::Mutex;
use tempfile::TempPath;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::space::Space;
use crate::blocking::run_blocking;
use crate::key::Key;

/// The length of a part. Long enough that a round trip to the bucket is a small share of its time.
pub(super) const PART_LEN: u64 = 4 << 20;

/// Where a part is. Its lock is held during a fetch, so that the part is fetched once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartState {
    Bucket,
    File,
}

/// A segment that is being fetched. It becomes a local copy once all of its parts are in the file.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) key: Key,
    pub(super) len: u64,
    parts: Vec<Arc<AsyncMutex<PartState>>>,
    /// The number of parts that are not in the file yet.
    left: AtomicUsize,
    /// Created for the first part that is written. `None` if the disk has no room for it.
    file: OnceLock<Option<FillFile>>,
    /// Whether nothing more is written to the file.
    is_broken: AtomicBool,
    /// Whether the segment, and so the parts fetched so far, may be damaged.
    is_damaged: AtomicBool,
    /// Whether space is reserved for the file.
    is_reserved: AtomicBool,
    space: Arc<Space>,
    /// The staging directory for the file.
    tmp: PathBuf,
}

#[derive(Debug)]
struct FillFile {
    file: File,
    path: Mutex<Option<TempPath>>,
}

impl Fill {
    pub(super) fn new(key: &Key, len: u64, (space, tmp): (&Arc<Space>, &Path)) -> Self {
        let count = usize::try_from(len.div_ceil(PART_LEN)).unwrap_or(usize::MAX);
        let part = || Arc::new(AsyncMutex::new(PartState::Bucket));
        Self {
            key: key.clone(),
            len,
            parts: std::iter::repeat_with(part).take(count).collect(),
            left: AtomicUsize::new(count),
            file: OnceLock::new(),
            is_broken: AtomicBool::new(false),
            is_damaged: AtomicBool::new(false),
            is_reserved: AtomicBool::new(false),
            space: Arc::clone(space),
            tmp: tmp.to_owned(),
        }
    }

    /// Returns the file, and creates it first if there is room for it. Blocks.
    fn file(&self) -> Option<&FillFile> {
        // Tried once. Without a file the segment gets no copy, and its parts come from memory or
        // the bucket.
        let make = || {
            if !self.space.reserve(self.len) {
                return None;
            }
            self.is_reserved.store(true, Ordering::Relaxed);
            let create = || {
                let (file, path) = tempfile::NamedTempFile::new_in(&self.tmp)?.into_parts();
                file.set_len(self.len)?;
                let path = Mutex::new(Some(path));
                Ok::<_, std::io::Error>(FillFile { file, path })
            };
            create().inspect_err(|error| self.note_full(error)).ok()
        };
        self.file.get_or_init(make).as_ref()
    }

    /// Returns the file if it has been created.
    fn made_file(&self) -> Option<&FillFile> {
        self.file.get().and_then(Option::as_ref)
    }

    pub(super) fn count(&self) -> usize {
        self.parts.len()
    }

    /// Returns the bytes of the segment that a part has.
    pub(super) fn range(&self, part: usize) -> Range<u64> {
        let start = part as u64 * PART_LEN;
        start..(start + PART_LEN).min(self.len)
    }

    /// Locks a part, and waits while another task fetches it. Returns `None` if there is no such
    /// part.
    pub(super) async fn lock(&self, part: usize) -> Option<OwnedMutexGuard<PartState>> {
        let part = self.parts.get(part)?;
        Some(Arc::clone(part).lock_owned().await)
    }

    /// Locks a part, or returns `None` if another task fetches it.
    pub(super) fn try_lock(&self, part: usize) -> Option<OwnedMutexGuard<PartState>> {
        Arc::clone(self.parts.get(part)?).try_lock_owned().ok()
    }

    /// Returns whether the fill may still become a local copy.
    pub(super) fn takes_parts(&self) -> bool {
        !matches!(self.file.get(), Some(None)) && !self.is_broken.load(Ordering::Relaxed)
    }

    /// Ends the fill because its segment was found damaged.
    pub(super) fn note_damaged(&self) {
        self.is_damaged.store(true, Ordering::SeqCst);
        self.is_broken.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::SeqCst)
    }

    /// Reads bytes that were written to the file.
    pub(super) async fn read(
        self: &Arc<Self>,
        offset: u64,
        into: &mut [u8],
    ) -> std::io::Result<()> {
        let none = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let file = self.made_file().ok_or_else(none)?;
        if read_now(&file.file, offset, into) {
            return Ok(());
        }
        let (this, len) = (Arc::clone(self), into.len());
        let read = move || {
            let mut bytes = vec![0; len];
            let file = this.made_file().ok_or_else(none)?;
            file.file.read_exact_at(&mut bytes, offset).map(|()| bytes)
        };
        let bytes = run_blocking(read).await.ok_or_else(none)??;
        into.copy_from_slice(&bytes);
        Ok(())
    }

    /// Writes a part to the file. Returns whether it is there. If the disk is full, ends the fill.
    pub(super) fn write(&self, part: usize, bytes: &[u8]) -> bool {
        if !self.takes_parts() {
            return false;
        }
        let Some(file) = self.file() else {
            return false;
        };
        // If no copy is left to evict, this file must make way for other files too.
        let written = if self.space.is_short() {
            Err(std::io::ErrorKind::StorageFull.into())
        } else {
            file.file.write_all_at(bytes, self.range(part).start)
        };
        written.inspect_err(|error| self.note_full(error)).is_ok()
    }

    /// Ends the fill because the disk is full or fails.
    fn note_full(&self, error: &std::io::Error) {
        if !self.is_broken.swap(true, Ordering::Relaxed) {
            tracing::warn!(key = %self.key, %error, "Can't make a local copy of a segment");
            self.space.free_some();
        }
    }

    /// Counts a part that was written to the file. Returns whether it was the last one.
    pub(super) fn note_written(&self) -> bool {
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Moves the complete file to `to`, durably.
    pub(super) fn finish(&self, to: &Path) -> std::io::Result<()> {
        let Some(file) = self.made_file() else {
            return Ok(());
        };
        let path = file.path.lock().take();
        let Some(path) = path else {
            return Ok(());
        };
        // Synced before it has its name: after a crash, a copy with holes would be taken for
        // complete.
        file.file.sync_data()?;
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        path.persist(to).map_err(|error| error.error)?;
        Ok(())
    }
}

impl Fill {
    /// Gives the reserved space back. By now the file is counted as a copy, or is gone.
    pub(super) fn release(&self) {
        if self.is_reserved.swap(false, Ordering::Relaxed) {
            self.space.release(self.len);
        }
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.release();
    }
}
