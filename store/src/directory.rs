//! [`Directory`]: objects as files in one directory. A file appears whole or not at all.
//!
//! Its calls block. [`DiskTier`](super::DiskTier) makes them on threads that may block.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use cachewfs_base::read_now;
use cachewfs_format::{Digest, RepoName, SegmentId};

use super::TierError;
use super::key::{Key, Object, Shelf, ShelfPart};
use super::objects::{Listed, NewSegment, Stat, Version, Whole, Written};
use super::reads::Reads;

/// At most this many new files are made durable one by one. For more files, one `syncfs` is faster.
const MAX_SINGLE_SYNCS: usize = 16;

/// Objects in a directory.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) root: PathBuf,
    /// The staging directory, on the filesystem of `root`: files are finished here, then renamed.
    pub(super) tmp: PathBuf,
    reads: Arc<Reads>,
}

impl Directory {
    /// Creates or opens a tier. `tmp` must be on the filesystem of `root`.
    pub(super) fn open(root: &Path, tmp: &Path) -> Result<Self, TierError> {
        for directory in [&root.join("v1"), tmp] {
            fs::create_dir_all(directory).map_err(TierError::at(directory))?;
        }
        let tier = Self {
            root: root.to_owned(),
            tmp: tmp.to_owned(),
            reads: Arc::default(),
        };
        tier.sweep().map_err(TierError::at(tmp))?;
        Ok(tier)
    }

    /// Returns the path of an object.
    pub(super) fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.to_string())
    }

    /// Stores an object whether or not it exists.
    pub(super) fn put(&self, key: &Key, bytes: &[u8]) -> Result<(), TierError> {
        let path = self.path(key);
        let file = self.write(&path, bytes)?;
        let put = file.persist(&path);
        put.map_err(|error| TierError::at(&path)(error.error))?;
        sync_directory(path.parent().unwrap_or(&path))
    }

    pub(super) fn directory(&self, shelf: &Shelf) -> PathBuf {
        self.root.join(Key::prefix_of(shelf))
    }

    /// Writes the future content of `path` to a durable temporary file.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile, TierError> {
        let parent = path.parent().unwrap_or(path);
        fs::create_dir_all(parent).map_err(TierError::at(parent))?;
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.tmp)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        write().map_err(TierError::at(&self.tmp))
    }

    /// Returns the counters of its reads.
    pub(super) fn reads(&self) -> Arc<Reads> {
        Arc::clone(&self.reads)
    }

    /// Fills `into` if the bytes are in the page cache. Returns whether it did.
    pub(super) fn read_now(&self, key: &Key, offset: u64, into: &mut [u8]) -> bool {
        let file = File::open(self.path(key));
        let is_read = file.is_ok_and(|file| read_now(&file, offset, into));
        if is_read {
            self.reads.disk.note(into.len());
        }
        is_read
    }

    /// Deletes the rest of a shelf whose pointer and manifests are gone, except for the deletion
    /// notice and the LFS shelf below the shelf.
    pub(super) fn delete_shelf(&self, shelf: &Shelf) -> Result<(), TierError> {
        let directory = self.directory(shelf);
        let deletions = self.path(&Key::deletions(shelf));
        let below = self.directory(&shelf.below());
        let kept = [deletions.with_extension("lock"), deletions, below];
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(TierError::at(&directory))?,
        };
        for entry in entries {
            let entry = entry.map_err(TierError::at(&directory))?;
            let path = entry.path();
            if kept.contains(&path) {
                continue;
            }
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_directory {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            unless_gone(removed).map_err(TierError::at(path))?;
        }
        // Fails if something is kept in it.
        fs::remove_dir(&directory).ok();
        Ok(())
    }
}

/// The calls of [`Objects`](super::Objects), which block.
impl Directory {
    pub(super) fn read_at(&self, key: &Key, offset: u64, into: &mut [u8]) -> Result<(), TierError> {
        let path = self.path(key);
        let read = File::open(&path).and_then(|file| file.read_exact_at(into, offset));
        read.map_err(|source| match source.kind() {
            ErrorKind::NotFound => TierError::NotFound { key: key.boxed() },
            ErrorKind::UnexpectedEof => TierError::Truncated { key: key.boxed() },
            _ => TierError::Io { path, source },
        })?;
        self.reads.disk.note(into.len());
        Ok(())
    }

    pub(super) fn read_whole(&self, key: &Key) -> Result<Option<Whole>, TierError> {
        let (path, read_at) = (self.path(key), Instant::now());
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(Whole {
                version: version(&bytes),
                bytes,
                read_at,
            })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TierError::Io { path, source }),
        }
    }

    pub(super) fn create(&self, key: &Key, bytes: &[u8]) -> Result<Written, TierError> {
        let path = self.path(key);
        let file = self.write(&path, bytes)?;
        // Unlike a rename, a link fails if the name exists: of several daemons, one creates the
        // object.
        let written = match fs::hard_link(file.path(), &path) {
            Ok(()) => Written::New,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Written::TooLate,
            Err(source) => return Err(TierError::Io { path, source }),
        };
        sync_directory(path.parent().unwrap_or(&path))?;
        Ok(written)
    }

    pub(super) fn create_segments(
        &self,
        shelf: &Shelf,
        mut segments: Vec<NewSegment>,
    ) -> Result<u64, TierError> {
        let directory = self.directory(shelf).join(ShelfPart::Segments.directory());
        fs::create_dir_all(&directory).map_err(TierError::at(&directory))?;
        for segment in &mut segments {
            segment.file = self.move_beside(std::mem::take(&mut segment.file))?;
        }
        let sync_each = segments.len() <= MAX_SINGLE_SYNCS;
        if !sync_each {
            let tmp = File::open(&self.tmp).map_err(TierError::at(&self.tmp))?;
            rustix::fs::syncfs(tmp).map_err(|errno| TierError::at(&self.tmp)(errno.into()))?;
        }
        // From the look at a segment until it is renewed or renamed, no collection may delete it.
        let _lock = self.lock_for_storing(shelf)?;
        let mut new_bytes = 0;
        for NewSegment { id, file, len } in segments {
            let path = self.path(&Key::segment(shelf, id));
            if path.exists() {
                // The segment becomes young again, so the grace period keeps it until the manifest
                // is written.
                renew(&path)?;
                fs::remove_file(&file).map_err(TierError::at(&file))?;
                continue;
            }
            // Durable before it has its name: a name without content would survive a crash as
            // damage.
            if sync_each {
                File::open(&file)
                    .and_then(|file| file.sync_all())
                    .map_err(TierError::at(&file))?;
            }
            fs::rename(&file, &path).map_err(TierError::at(&path))?;
            new_bytes += len;
        }
        sync_directory(&directory)?;
        Ok(new_bytes)
    }

    pub(super) fn swap(
        &self,
        key: &Key,
        expected: Option<&Version>,
        bytes: &[u8],
    ) -> Result<Written, TierError> {
        let path = self.path(key);
        let parent = path.parent().unwrap_or(&path);
        fs::create_dir_all(parent).map_err(TierError::at(parent))?;
        // A lock on the object itself would be lost: each write replaces it by another file.
        let lock_path = path.with_extension("lock");
        let lock = File::create(&lock_path).map_err(TierError::at(&lock_path))?;
        // Held to the end of the function. The kernel releases it if the daemon dies.
        lock.lock().map_err(TierError::at(&lock_path))?;
        let present = self.read_whole(key)?.map(|present| present.version);
        if present.as_ref() != expected {
            return Ok(Written::TooLate);
        }
        self.write(&path, bytes)?
            .persist(&path)
            .map_err(|error| TierError::at(&path)(error.error))?;
        sync_directory(parent)?;
        Ok(Written::New)
    }

    pub(super) fn stat(&self, key: &Key) -> Result<Option<Stat>, TierError> {
        let path = self.path(key);
        match fs::metadata(&path).and_then(|metadata| stat(&metadata)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            stat => stat.map(Some).map_err(TierError::at(path)),
        }
    }

    pub(super) fn list(&self, shelf: &Shelf, part: ShelfPart) -> Result<Vec<Listed>, TierError> {
        let directory = self.directory(shelf).join(part.directory());
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(TierError::at(&directory))?,
        };
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry.map_err(TierError::at(&directory))?;
            let Some(object) = part.parse(&entry.file_name().to_string_lossy()) else {
                continue;
            };
            match entry.metadata().and_then(|metadata| stat(&metadata)) {
                // It has been deleted since the directory was read.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(TierError::at(entry.path())(source)),
                Ok(stat) => listed.push(Listed { object, stat }),
            }
        }
        Ok(listed)
    }

    pub(super) fn repositories(&self) -> Result<Vec<RepoName>, TierError> {
        self.published()
    }

    pub(super) fn delete(&self, keys: &[Key]) -> Result<(), TierError> {
        keys.iter().try_for_each(|key| {
            let path = self.path(key);
            unless_gone(fs::remove_file(&path)).map_err(TierError::at(path))
        })
    }

    pub(super) fn set_aside(&self, shelf: &Shelf, id: SegmentId) -> Result<(), TierError> {
        let path = self.path(&Key::segment(shelf, id));
        let aside = self.path(&Key::new(shelf, Object::Damaged(id)));
        match fs::rename(&path, &aside) {
            // Its grace period begins again: it is kept like a segment that was just stored.
            Ok(()) => renew(&aside),
            // Two readers may find the same damage, and the second one has nothing left to do.
            renamed => unless_gone(renamed).map_err(TierError::at(path)),
        }
    }
}

/// Treats a missing file as removed.
fn unless_gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn version(bytes: &[u8]) -> Version {
    Version::new(Digest::of(bytes).to_string())
}

fn stat(metadata: &fs::Metadata) -> std::io::Result<Stat> {
    Ok(Stat {
        len: metadata.len(),
        stored_at: metadata.modified()?,
    })
}

fn sync_directory(directory: &Path) -> Result<(), TierError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(TierError::at(directory))
}

/// Makes a segment young, as if it had just been written.
fn renew(path: &Path) -> Result<(), TierError> {
    File::open(path)
        .and_then(|segment| segment.set_modified(SystemTime::now()))
        .map_err(TierError::at(path))
}
