//! A segment that is being fetched: a temporary file of its length, and which of its parts are there.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tempfile::TempPath;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::space::Space;
use crate::store::key::Key;

/// Length of a part: long enough that the way to the bucket and back is a small part of its time.
pub(super) const PART_LEN: u64 = 4 << 20;

/// Where a part is. Its lock is held while it is fetched, so that it is fetched once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Bucket,
    File,
}

/// A segment that is being fetched.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) key: Key,
    pub(super) len: u64,
    parts: Vec<Arc<AsyncMutex<Place>>>,
    /// Parts that are not in the file yet.
    left: AtomicUsize,
    /// Made for the first part that is written; `None` if the disk doesn't take it.
    file: OnceLock<Option<FillFile>>,
    is_broken: AtomicBool,
    /// Whether what was fetched so far may be damaged.
    is_damaged: AtomicBool,
    /// Whether room is reserved for it.
    is_reserved: AtomicBool,
    space: Arc<Space>,
    /// Where the file is made.
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
        let part = || Arc::new(AsyncMutex::new(Place::Bucket));
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

    /// Its file, if there is room for one; blocks.
    fn file(&self) -> Option<&FillFile> {
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

    /// Its file, if it was made.
    fn made_file(&self) -> Option<&FillFile> {
        self.file.get().and_then(Option::as_ref)
    }

    pub(super) fn count(&self) -> usize {
        self.parts.len()
    }

    /// Which bytes of the segment a part has.
    pub(super) fn range(&self, part: usize) -> Range<u64> {
        let start = part as u64 * PART_LEN;
        start..(start + PART_LEN).min(self.len)
    }

    /// Waits until nobody fetches a part; `None` if there is no such part.
    pub(super) async fn lock(&self, part: usize) -> Option<OwnedMutexGuard<Place>> {
        let part = self.parts.get(part)?;
        Some(Arc::clone(part).lock_owned().await)
    }

    /// `None` if somebody fetches it.
    pub(super) fn try_lock(&self, part: usize) -> Option<OwnedMutexGuard<Place>> {
        Arc::clone(self.parts.get(part)?).try_lock_owned().ok()
    }

    /// Whether it may still become a copy on disk.
    pub(super) fn takes_parts(&self) -> bool {
        !matches!(self.file.get(), Some(None)) && !self.is_broken.load(Ordering::Relaxed)
    }

    /// Ends the filling: what it is of was found damaged.
    pub(super) fn note_damaged(&self) {
        self.is_damaged.store(true, Ordering::SeqCst);
        self.is_broken.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::SeqCst)
    }

    /// Reads from the file what was written to it.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> std::io::Result<()> {
        let none = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let file = self.made_file().ok_or_else(none)?;
        file.file.read_exact_at(into, offset)
    }

    /// Writes a part to the file; tells whether it is there. A disk that takes no more ends the filling.
    pub(super) fn write(&self, part: usize, bytes: &[u8]) -> bool {
        if !self.takes_parts() {
            return false;
        }
        let Some(file) = self.file() else {
            return false;
        };
        let written = if self.space.is_short() {
            Err(std::io::ErrorKind::StorageFull.into())
        } else {
            file.file.write_all_at(bytes, self.range(part).start)
        };
        written.inspect_err(|error| self.note_full(error)).is_ok()
    }

    /// The disk takes no more.
    fn note_full(&self, error: &std::io::Error) {
        if !self.is_broken.swap(true, Ordering::Relaxed) {
            tracing::warn!(key = %self.key, %error, "The disk takes no copy of a segment");
            self.space.free_some();
        }
    }

    /// Notes that a part is in the file; tells whether that was the last.
    pub(super) fn note_written(&self) -> bool {
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Puts the whole file at `to`.
    pub(super) fn finish(&self, to: &Path) -> std::io::Result<()> {
        let Some(file) = self.made_file() else {
            return Ok(());
        };
        let path = file
            .path
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(path) = path else {
            return Ok(());
        };
        file.file.sync_data()?;
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        path.persist(to).map_err(|error| error.error)?;
        Ok(())
    }
}

impl Fill {
    /// Gives the room back that is reserved for it: what takes it up is counted as a copy, or gone.
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
