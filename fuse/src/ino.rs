//! The numbers of inodes: digests of what they stand for.
//!
//! So the same file has the same number in each process and after each restart.

use std::fmt;

use cachewfs_format::{RepoName, inode_of};
use serde::{Deserialize, Serialize};

/// The number of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Ino(pub(crate) u64);

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
    /// All trees.
    pub(crate) const ALL: [Self; 4] = [Self::Git, Self::Objects, Self::Bare, Self::Inner];
    /// The trees that are the bare repository.
    pub(crate) const BARE: [Self; 3] = [Self::Objects, Self::Bare, Self::Inner];

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
    pub(crate) fn of_files(self) -> Self {
        match self {
            Self::Git => Self::Git,
            Self::Objects | Self::Bare | Self::Inner => Self::Bare,
        }
    }

    fn tag(self) -> &'static [u8] {
        match self {
            Self::Git => b"git",
            Self::Objects => b"object tree",
            Self::Bare => b"bare",
            Self::Inner => b"inner",
        }
    }
}

impl Ino {
    /// The root of the mount.
    pub(crate) const ROOT: Self = Self(1);

    fn of(tag: &[u8], repo: &str, path: &[u8], content: &[u8]) -> Self {
        Self(inode_of(&[tag, repo.as_bytes(), path, content]))
    }

    /// Returns the inode of a directory above repositories.
    pub(crate) fn of_names(area: Area, prefix: &str) -> Self {
        match area {
            Area::Root if prefix.is_empty() => Self::ROOT,
            Area::Root => Self::of(b"names", "", prefix.as_bytes(), b""),
            Area::Objects => Self::of(b"objects", "", prefix.as_bytes(), b""),
        }
    }

    /// Returns the inode of a directory of a small tree.
    pub(crate) fn of_tree_directory(repo: &RepoName, tree: Tree, path: &[u8]) -> Self {
        Self::of(tree.tag(), repo.as_str(), path, b"")
    }

    /// Returns the inode of a file of a small tree, whose content has this digest.
    ///
    /// With the content in the number, the bytes of an inode never change. So the kernel may keep
    /// them, and an open file keeps its bytes when the next snapshot replaces the file.
    pub(crate) fn of_tree_file(
        repo: &RepoName,
        tree: Tree,
        path: &[u8],
        content: [u8; 32],
    ) -> Self {
        Self::of(tree.of_files().tag(), repo.as_str(), path, &content)
    }

    /// Returns the inode of a directory of the work tree.
    pub(crate) fn of_work_tree_directory(repo: &RepoName, path: &[u8]) -> Self {
        Self::of(b"work tree", repo.as_str(), path, b"")
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
