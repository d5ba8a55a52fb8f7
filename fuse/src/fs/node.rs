//! Nodes: the files and directories that inodes stand for, with their numbers and attributes.

use std::sync::Arc;

use cachewfs_format::RepoName;

use super::{Attr, FileKind};
use crate::ino::{Area, Ino, Tree};
use crate::repository::Repository;
use crate::view::{StaticFile, WorkTreeFile};

/// The modification time of directories, in seconds since the epoch: 1980-01-02T00:00:00Z.
///
/// Zip archives can't hold earlier years than 1980. The second day of the year is in 1980 in every
/// time zone.
const DIRECTORY_MTIME: i64 = 315_619_200;

/// The file or directory that an inode stands for.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// A directory above repositories: the root, a host, an organisation.
    Names {
        /// The top directory that it is below.
        area: Area,
        /// The names from the area's root, such as `github.com/org`. Empty for the root itself.
        prefix: String,
    },
    /// A repository that a listing shows, and that nobody has looked into: its top in this area.
    /// It is loaded when somebody does.
    Unloaded {
        /// The top directory that it is below.
        area: Area,
        /// The name of the repository.
        name: RepoName,
    },
    /// A directory of a small tree.
    TreeDirectory {
        /// The repository.
        repository: Arc<Repository>,
        /// Which tree.
        tree: Tree,
        /// The path in the tree. Empty for its root.
        path: Vec<u8>,
    },
    /// A file of a small tree.
    TreeFile {
        /// The repository.
        repository: Arc<Repository>,
        /// Which tree.
        tree: Tree,
        /// The path in the tree.
        path: Vec<u8>,
        /// The file.
        file: StaticFile,
    },
    /// A directory of the work tree. The one with an empty path is the top of the repository.
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
    /// Returns the inode's number. A directory's follows from its path, a file's also from its
    /// content.
    pub(crate) fn ino(&self) -> Ino {
        match self {
            Self::Names { area, prefix } => Ino::of_names(*area, prefix),
            // The numbers of the loaded repository.
            Self::Unloaded {
                area: Area::Root,
                name,
            } => Ino::of_work_tree_directory(name, b""),
            Self::Unloaded {
                area: Area::Objects,
                name,
            } => Ino::of_tree_directory(name, Tree::Objects, b""),
            Self::TreeDirectory {
                repository,
                tree,
                path,
            } => Ino::of_tree_directory(&repository.name, *tree, path),
            Self::TreeFile {
                repository,
                tree,
                path,
                file,
            } => Ino::of_tree_file(&repository.name, *tree, path, file.content.digest()),
            Self::WorkTreeDirectory { repository, path } => {
                Ino::of_work_tree_directory(&repository.name, path)
            }
            Self::WorkTreeFile {
                repository,
                file,
                path,
            } => file.ino(&repository.name, path),
        }
    }

    /// Returns the repository that the node belongs to, or `None` for a directory above
    /// repositories.
    pub(super) fn repository(&self) -> Option<&Arc<Repository>> {
        match self {
            Self::Names { .. } | Self::Unloaded { .. } => None,
            Self::TreeDirectory { repository, .. }
            | Self::TreeFile { repository, .. }
            | Self::WorkTreeDirectory { repository, .. }
            | Self::WorkTreeFile { repository, .. } => Some(repository),
        }
    }

    /// Returns the path from the mount point, for people.
    pub(super) fn path_in_mount(&self) -> String {
        let area_root = |area: &Area| match area {
            Area::Root => String::new(),
            Area::Objects => ".objects".to_owned(),
        };
        let (root, path) = match self {
            Self::Names { area, prefix } => (area_root(area), prefix.as_bytes()),
            Self::Unloaded { area, name } => (area_root(area), name.as_str().as_bytes()),
            Self::TreeDirectory {
                repository,
                tree,
                path,
            } => (tree.root(&repository.name), path.as_slice()),
            Self::TreeFile {
                repository,
                tree,
                path,
                ..
            } => (tree.of_files().root(&repository.name), path.as_slice()),
            Self::WorkTreeDirectory { repository, path }
            | Self::WorkTreeFile {
                repository, path, ..
            } => (repository.name.to_string(), path.as_slice()),
        };
        let path = String::from_utf8_lossy(path);
        let parts = [&*root, &*path];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("/")
    }

    /// Returns the node's attributes.
    pub(super) fn attr(&self) -> Attr {
        let ino = self.ino();
        let directory = Attr {
            ino,
            kind: FileKind::Directory,
            size: 4096,
            mode: 0o755,
            mtime: DIRECTORY_MTIME,
            is_top_of_repository: false,
            is_lasting: true,
        };
        match self {
            // A name below may become a repository at any time.
            Self::Names { .. } => Attr {
                is_lasting: false,
                ..directory
            },
            // Only a loaded repository tells the kernel when its names change.
            Self::Unloaded { .. } => Attr {
                is_top_of_repository: true,
                is_lasting: false,
                ..directory
            },
            Self::TreeDirectory { path, .. } | Self::WorkTreeDirectory { path, .. } => Attr {
                is_top_of_repository: path.is_empty(),
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
