//! What an inode stands for.

use std::sync::Arc;

use super::{Attr, FileKind, Ino, ino_of};
use crate::repository::Repository;
use crate::view::{FileContent, StaticFile, WorkTreeFile};

/// The time of directories, in seconds since the epoch: 1980-01-02T00:00:00Z, which is in a year
/// that zip archives can hold, wherever it is read.
const DIRECTORY_MTIME: i64 = 315_619_200;

/// The two places where repositories are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Area {
    /// The root of the mount.
    Root,
    /// `.objects`.
    Objects,
}

/// The two small trees of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    /// `<repository>/.git`.
    Git,
    /// `.objects/<repository>`.
    Objects,
}

/// What an inode stands for.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// A directory of names that repositories have in common: the root, a host, an organisation.
    Names {
        /// Where.
        area: Area,
        /// The names so far, `github.com/org`; empty for the root of the area.
        prefix: String,
    },
    /// A directory of a small tree.
    TreeDirectory {
        /// The repository.
        repository: Arc<Repository>,
        /// Which tree.
        tree: Tree,
        /// The path in it; empty for its root.
        path: Vec<u8>,
    },
    /// A file of a small tree.
    TreeFile {
        /// The repository.
        repository: Arc<Repository>,
        /// Which tree.
        tree: Tree,
        /// The path in it.
        path: Vec<u8>,
        /// The file.
        file: StaticFile,
    },
    /// A directory of the work tree; the repository itself is the one with an empty path.
    WorkTreeDirectory {
        /// The repository.
        repository: Arc<Repository>,
        /// The path in the work tree.
        path: Vec<u8>,
    },
    /// A file or symbolic link of the work tree.
    WorkTreeFile {
        /// The repository.
        repository: Arc<Repository>,
        /// The file.
        file: WorkTreeFile,
        /// The path in the work tree.
        path: Vec<u8>,
    },
}

impl Node {
    /// Returns its inode number: a directory is identified by its path, a file by its content, too.
    pub(super) fn ino(&self) -> Ino {
        match self {
            Self::Names {
                area: Area::Root,
                prefix,
            } => ino_of(b"names", "", prefix.as_bytes(), b""),
            Self::Names {
                area: Area::Objects,
                prefix,
            } => ino_of(b"objects", "", prefix.as_bytes(), b""),
            Self::TreeDirectory {
                repository,
                tree,
                path,
            } => tree_ino(repository, *tree, path),
            Self::TreeFile {
                repository,
                tree,
                path,
                file,
            } => {
                let content = match &file.content {
                    FileContent::Bytes(bytes) => *blake3::hash(bytes).as_bytes(),
                    FileContent::Segment(segment) => *segment.record().id.0.as_bytes(),
                };
                ino_of(tree_tag(*tree), repository.name.as_str(), path, &content)
            }
            Self::WorkTreeDirectory { repository, path } => {
                work_tree_ino(repository.name.as_str(), path)
            }
            Self::WorkTreeFile {
                repository,
                file,
                path,
            } => file.ino(&repository.name, path),
        }
    }

    /// The repository that it belongs to.
    pub(super) fn repository(&self) -> Option<&Arc<Repository>> {
        match self {
            Self::Names { .. } => None,
            Self::TreeDirectory { repository, .. }
            | Self::TreeFile { repository, .. }
            | Self::WorkTreeDirectory { repository, .. }
            | Self::WorkTreeFile { repository, .. } => Some(repository),
        }
    }

    /// Its attributes.
    pub(super) fn attr(&self) -> Attr {
        let ino = self.ino();
        let directory = Attr {
            ino,
            kind: FileKind::Directory,
            size: 4096,
            mode: 0o755,
            mtime: DIRECTORY_MTIME,
            is_owned_by_caller: false,
            is_lasting: true,
        };
        match self {
            Self::Names { .. } => Attr {
                is_lasting: false,
                ..directory
            },
            Self::TreeDirectory { path, .. } | Self::WorkTreeDirectory { path, .. } => Attr {
                is_owned_by_caller: path.is_empty(),
                ..directory
            },
            Self::TreeFile { file, .. } => Attr {
                kind: FileKind::File,
                size: file.content.len(),
                mode: 0o444,
                mtime: file.mtime,
                ..directory
            },
            Self::WorkTreeFile { file, .. } => {
                let (kind, mode) = match (file.is_symlink, file.is_executable) {
                    (true, _) => (FileKind::Symlink, 0o777),
                    (false, true) => (FileKind::File, 0o755),
                    (false, false) => (FileKind::File, 0o644),
                };
                Attr {
                    kind,
                    size: file.size,
                    mode,
                    mtime: file.mtime,
                    ..directory
                }
            }
        }
    }
}

fn tree_tag(tree: Tree) -> &'static [u8] {
    match tree {
        Tree::Git => b"git",
        Tree::Objects => b"object tree",
    }
}

fn tree_ino(repository: &Repository, tree: Tree, path: &[u8]) -> Ino {
    tree_directory_ino(repository.name.as_str(), tree, path)
}

/// The inode of a directory of a small tree.
pub(crate) fn tree_directory_ino(repo: &str, tree: Tree, path: &[u8]) -> Ino {
    ino_of(tree_tag(tree), repo, path, b"")
}

/// The inode of a directory of the work tree.
pub(crate) fn work_tree_ino(repo: &str, path: &[u8]) -> Ino {
    ino_of(b"work tree", repo, path, b"")
}
