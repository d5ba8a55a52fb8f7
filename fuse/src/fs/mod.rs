//! Answers file system calls as plain values. Knows nothing of FUSE sessions or HTTP.

mod attr;
mod directory;
mod hand_over;
mod inode;
mod lookup;
mod node;
mod open;
mod outcome;
mod recovery;
#[cfg(test)]
mod tests;

pub(crate) use attr::{Attr, FileKind};
pub(crate) use directory::{DirectoryEntry, Listing};
pub(crate) use inode::Ino;
pub(crate) use node::{Area, Node, Tree};

pub(crate) use inode::ino_of;
pub(crate) use node::{tree_directory_ino, work_tree_ino};

use std::sync::{Arc, OnceLock};

use self::inode::InodeTable;
use crate::recovery::{Holder, OpenJournal};
use crate::repository::Repositories;

/// The file system of a mount.
#[derive(Debug)]
pub(crate) struct Fs {
    repositories: Arc<Repositories>,
    inodes: InodeTable,
    open_files: open::OpenFiles,
    open_directories: directory::OpenDirectories,
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
            open_files: open::OpenFiles::default(),
            open_directories: directory::OpenDirectories::default(),
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
