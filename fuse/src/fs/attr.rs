//! Attributes of files.

use super::Ino;

/// What `getattr` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attr {
    /// The inode.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Length in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u16,
    /// Modification time in seconds since the epoch.
    pub mtime: i64,
    /// Whether each user sees it as their own, as git's ownership check demands of a repository:
    /// then the kernel must not keep the attributes.
    pub is_owned_by_caller: bool,
    /// Whether what the name stands for stays the same until the kernel is told otherwise.
    pub is_lasting: bool,
}

/// What something in the mount is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}
