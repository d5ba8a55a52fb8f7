//! The attributes of files and directories.

use crate::ino::Ino;

/// The attributes that `getattr` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attr {
    /// The inode.
    pub ino: Ino,
    /// The kind of file.
    pub kind: FileKind,
    /// Length in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u16,
    /// Modification time in seconds since the epoch.
    pub mtime: i64,
    /// Whether git's ownership check looks at the owner: the top of a repository, and its git
    /// directory. It is the owner of the mount for every caller: the kernel has one owner for each
    /// inode, so an answer to one caller would be shown to the others.
    pub is_top_of_repository: bool,
    /// Whether the name keeps its meaning until this process invalidates it in the kernel.
    pub is_lasting: bool,
}

/// A kind of file in the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}
