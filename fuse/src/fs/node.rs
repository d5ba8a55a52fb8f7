//! Nodes: the files and directories that inodes stand for, with their numbers and attributes.

use std::sync::Arc;

use cachewfs_format::RepoName;
use serde::{Deserialize, Serialize};

use super::{Attr, FileKind, Ino, ino_of};
use crate::repository::{Repository, View};
use crate::view::{FileContent, StaticFile, StaticTree, WorkTreeFile};

/// The modification time of directories, in seconds since the epoch: 1980-01-02T00:00:00Z.
///
/// Zip archives can't hold earlier years than 1980. The second day of the year is in 1980 in every
/// time zone.
const DIRECTORY_MTIME: i64 = 315_619_200;

/// A top directory below which the mount shows repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Area {
    /// The root of the mount.
    Root,
    /// `.objects`.
    Objects,
}

/// A small tree of a repository, which is in memory as a whole.
///
/// All but the first are the bare repository, which has the packs, at different paths. A file of it
/// is one inode at all paths, so that the kernel keeps its pages once. A directory is one inode at
/// each path, because the kernel would move a directory that it finds at a second path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Tree {
    /// `<repository>/.git`, which borrows the objects of [`Tree::Inner`].
    Git,
    /// The bare repository at `.objects/<repository>`, from which older clones borrow.
    Objects,
    /// The bare repository at `<repository>.git`.
    Bare,
    /// The bare repository at `<repository>/.git/cachewfs`, from which `.git` and clones borrow.
    Inner,
}

impl Tree {
    /// The trees that are the bare repository.
    pub(crate) const BARE: [Self; 3] = [Self::Objects, Self::Bare, Self::Inner];

    /// Returns the files and directories of the tree in `view`.
    pub(crate) fn nodes(self, view: &View) -> &StaticTree {
        match self {
            Self::Git => &view.generation.git,
            Self::Objects | Self::Bare | Self::Inner => &view.objects,
        }
    }

    /// Returns the path of the tree's root from the mount point.
    pub(crate) fn root(self, repo: &RepoName) -> String {
        match self {
            Self::Git => format!("{repo}/.git"),
            Self::Objects => format!(".objects/{repo}"),
            Self::Bare => format!("{repo}.git"),
            Self::Inner => format!("{repo}/.git/cachewfs"),
        }
    }

    /// Returns the tree that stands for all trees with this one's files.
    fn of_files(self) -> Self {
        match self {
            Self::Git => Self::Git,
            Self::Objects | Self::Bare | Self::Inner => Self::Bare,
        }
    }
}

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
            Self::Names {
                area: Area::Root,
                prefix,
            } => ino_of(b"names", "", prefix.as_bytes(), b""),
            Self::Names {
                area: Area::Objects,
                prefix,
            } => ino_of(b"objects", "", prefix.as_bytes(), b""),
            // The numbers of the loaded repository.
            Self::Unloaded {
                area: Area::Root,
                name,
            } => work_tree_ino(name.as_str(), b""),
            Self::Unloaded {
                area: Area::Objects,
                name,
            } => tree_directory_ino(name.as_str(), Tree::Objects, b""),
            Self::TreeDirectory {
                repository,
                tree,
                path,
            } => tree_directory_ino(repository.name.as_str(), *tree, path),
            Self::TreeFile {
                repository,
                tree,
                path,
                file,
            } => {
                // With the content in the number, the bytes of an inode never change. So the kernel
                // may keep them, and an open file keeps its bytes when the next snapshot replaces
                // the file.
                let content = match &file.content {
                    FileContent::Bytes(bytes) => *blake3::hash(bytes).as_bytes(),
                    FileContent::Segment(segment) => *segment.record().id.0.as_bytes(),
                };
                let repo = repository.name.as_str();
                ino_of(tree_tag(tree.of_files()), repo, path, &content)
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

fn tree_tag(tree: Tree) -> &'static [u8] {
    match tree {
        Tree::Git => b"git",
        Tree::Objects => b"object tree",
        Tree::Bare => b"bare",
        Tree::Inner => b"inner",
    }
}

/// Returns the inode number of a directory of a small tree.
pub(crate) fn tree_directory_ino(repo: &str, tree: Tree, path: &[u8]) -> Ino {
    ino_of(tree_tag(tree), repo, path, b"")
}

/// Returns the inode number of a directory of the work tree.
pub(crate) fn work_tree_ino(repo: &str, path: &[u8]) -> Ino {
    ino_of(b"work tree", repo, path, b"")
}
