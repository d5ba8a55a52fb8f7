//! The attributes of files and directories.

use super::Ino;

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
    /// Whether each caller sees itself as the owner. git's ownership check requires that of the top
    /// of a repository. The kernel must not cache such attributes, because they differ between
    /// callers.
    pub is_owned_by_caller: bool,
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
