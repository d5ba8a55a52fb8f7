//! [`Fs`]: the file system of a mount.

use std::sync::{Arc, OnceLock};

use super::handles::Handles;
use super::inode::InodeTable;
use super::listing::OpenDirectory;
use super::open_file::OpenFile;
use crate::holder::{Holder, OpenJournal};
use crate::ino::Ino;
use crate::repository::Repositories;

/// The file system of a mount.
#[derive(Debug)]
pub(crate) struct Fs {
    pub(super) repositories: Arc<Repositories>,
    pub(super) inodes: InodeTable,
    pub(super) open_files: Handles<OpenFile>,
    pub(super) open_directories: Handles<OpenDirectory>,
    /// The journal of open segments, or `None` if there is no memory for it.
    pub(crate) journal: Option<OpenJournal>,
    /// The process that keeps what another needs to serve the mount if this one is killed.
    pub(crate) holder: OnceLock<Holder>,
}

impl Fs {
    /// Creates the file system that shows `repositories`.
    pub(crate) fn new(repositories: Arc<Repositories>) -> Self {
        Self {
            repositories,
            inodes: InodeTable::default(),
            open_files: Handles::default(),
            open_directories: Handles::default(),
            journal: OpenJournal::create().ok(),
            holder: OnceLock::new(),
        }
    }

    /// Returns the repositories that the file system shows.
    pub(crate) fn repositories(&self) -> &Arc<Repositories> {
        &self.repositories
    }

    /// Records that the kernel has forgotten `count` lookups of an inode.
    pub(crate) fn forget(&self, ino: Ino, count: u64) {
        self.inodes.forget(ino, count);
    }
}
