//! The directory in which a restore is made, and from which it resumes.
//!
//! ```text
//! .<target's name>.cachewfs-restore/      locked while a restore works
//!   repository        what is restored here: the repository and the kind of archive
//!   cache/            the chunks that arrived, each with a checksum
//!   tree/             the repository, made anew by each process, and renamed to the target; or
//!                     the objects that a clone lacks
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::error::CliError;
use crate::output;

/// The way to treat another process that restores to the same target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherProcess {
    Refuse,
    /// Waits until it has ended, and then goes on from its result.
    Join,
}

/// The staging directory of one target.
#[derive(Debug)]
pub(crate) struct RestoreStaging {
    path: PathBuf,
    /// Keeps other processes out. Unlocked when it is closed, also by a kill.
    _lock: File,
}

impl RestoreStaging {
    /// Opens the directory that an earlier process left beside this target, or creates it. While
    /// another process works there, fails or waits.
    ///
    /// `what` describes the restore. The cache of a restore of something else is removed.
    pub(crate) fn open(target: &Path, what: &str, other: OtherProcess) -> Result<Self> {
        let parent = target.parent().unwrap_or(Path::new("/"));
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = parent.join(format!(".{name}.cachewfs-restore"));
        let cant_create = || format!("can't create {}", path.display());
        fs::create_dir_all(parent).with_context(cant_create)?;
        // The cache refuses a directory that others may write to.
        match fs::DirBuilder::new().mode(0o755).create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            created => created.with_context(cant_create)?,
        }
        let lock = File::open(&path).with_context(cant_create)?;
        // Another error means a filesystem without locks: there, nobody can find out.
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            let directory = target.display().to_string();
            match other {
                OtherProcess::Refuse => return Err(CliError::RestoredTwice { directory }.into()),
                OtherProcess::Join => {
                    output::error(&format!(
                        "cachewfs: another restore is working on {directory}: waiting for it"
                    ));
                    lock.lock().with_context(cant_create)?;
                    // The other process has removed the directory that it locked.
                    drop(lock);
                    return Self::open(target, what, other);
                }
            }
        }
        let staging = Self { path, _lock: lock };
        staging
            .prepare(what)
            .with_context(|| format!("can't prepare {}", staging.path.display()))?;
        Ok(staging)
    }

    fn prepare(&self, what: &str) -> std::io::Result<()> {
        remove(&self.tree())?;
        let note = self.path.join("repository");
        if fs::read(&note).ok().as_deref() != Some(what.as_bytes()) {
            remove(&self.cache())?;
            // After a crash that leaves half of it, the next restore starts from nothing.
            File::create(&note)?.write_all(what.as_bytes())?;
        }
        fs::create_dir(self.tree())
    }

    /// The directory with the repository.
    pub(crate) fn tree(&self) -> PathBuf {
        self.path.join("tree")
    }

    /// The directory with the chunks.
    pub(crate) fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the repository to `target`. An empty directory takes its place.
    pub(crate) fn publish(&self, target: &Path) -> Result<()> {
        fs::rename(self.tree(), target)
            .and_then(|()| fs::create_dir(self.tree()))
            .with_context(|| {
                format!(
                    "can't rename {} to {}",
                    self.path.display(),
                    target.display()
                )
            })
    }

    /// Returns whether no byte of the repository has arrived.
    pub(crate) fn is_empty(&self) -> bool {
        let entries = fs::read_dir(self.cache().join("v1")).into_iter().flatten();
        // Segments are in directories; the file of a lock may be beside them.
        let mut entries = entries.flatten();
        !entries.any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    }

    /// Removes everything, because it is in place or of no use. Nothing can be resumed.
    pub(crate) fn discard(self) {
        remove(&self.path).ok();
    }
}

fn remove(directory: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
