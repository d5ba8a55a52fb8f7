//! Drops what a new snapshot made stale from the kernel's caches.
//!
//! The kernel keeps names, missing names and listings until this process invalidates them. A new
//! snapshot therefore invalidates each name whose file changed, appeared or went away.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use cachewfs_format::RepoName;
use fuser::{INodeNo, Notifier};

use crate::ino::{Area, Ino, Tree};
use crate::view::{View, WorkTree, WorkTreeNode};

/// A handle that drops names and listings from the kernel's caches.
#[derive(Clone, Debug)]
pub(crate) struct Invalidator(Notifier);

impl Invalidator {
    /// Creates an invalidator that notifies the kernel through `notifier`.
    pub(crate) fn new(notifier: Notifier) -> Self {
        Self(notifier)
    }

    /// Drops the names and listings that differ between two views of a repository.
    ///
    /// Blocks while another call holds the lock of a directory concerned.
    pub(crate) fn invalidate(&self, repo: &RepoName, before: &View, now: &View) {
        let objects = now.objects.changed_paths(&before.objects);
        for tree in Tree::BARE {
            self.drop_names(&objects, |path| Ino::of_tree_directory(repo, tree, path));
        }
        if Arc::ptr_eq(&before.generation, &now.generation) {
            return;
        }
        let mut git = now.generation.git.changed_paths(&before.generation.git);
        if before.generation.snapshot != now.generation.snapshot {
            git.push(b"index");
        }
        self.drop_names(&git, |path| Ino::of_tree_directory(repo, Tree::Git, path));
        let Some(tree) = before.generation.loaded_work_tree() else {
            // Without a loaded index there is nothing to compare. The kernel knows only names that
            // were looked up one by one, so dropping these is enough.
            let names = before.generation.searched();
            let names: Vec<_> = names.iter().map(Vec::as_slice).collect();
            self.drop_names(&names, |path| Ino::of_work_tree_directory(repo, path));
            return;
        };
        // If the new work tree couldn't be loaded, it counts as empty: every old name is dropped.
        let unknown = Arc::new(WorkTree::empty());
        let now = now.generation.loaded_work_tree().unwrap_or(&unknown);
        let changed = now.changed_paths(tree);
        let names = with_changed_directories(&changed, tree, now);
        self.drop_names(&names, |path| Ino::of_work_tree_directory(repo, path));
    }

    /// Drops names of a small tree that another process showed otherwise.
    pub(crate) fn drop_stale(&self, repo: &RepoName, tree: Tree, path: &[u8]) {
        self.drop_names(&[path], |path| Ino::of_tree_directory(repo, tree, path));
    }

    /// Drops the name of a repository.
    pub(crate) fn drop_repository(&self, repo: &RepoName) {
        let Some((prefix, name)) = repo.as_str().rsplit_once('/') else {
            return;
        };
        let above = INodeNo(Ino::of_names(Area::Root, prefix).0);
        // It fails if the kernel doesn't know the name.
        self.0.inval_entry(above, OsStr::new(name)).ok();
    }

    /// Drops the names of `paths`, then the listings of their directories.
    fn drop_names(&self, paths: &[&[u8]], ino_of_directory: impl Fn(&[u8]) -> Ino) {
        let mut names: BTreeMap<&[u8], BTreeSet<&[u8]>> = BTreeMap::new();
        for path in paths {
            let (directory, name) = split(path);
            names.entry(directory).or_default().insert(name);
        }
        for (directory, names) in names {
            let ino = INodeNo(ino_of_directory(directory).0);
            // Names first: dropping a name takes the directory's lock. So it waits until the kernel
            // has filled in a listing that this process answered before the switch. Dropping a
            // listing takes no lock; if it came first, such a listing could be cached afterwards.
            //
            // Both calls fail for names and inodes that the kernel doesn't know. Then it has
            // nothing stale to drop.
            for name in names {
                self.0.inval_entry(ino, OsStr::from_bytes(name)).ok();
            }
            self.0.inval_inode(ino, 0, 0).ok();
        }
    }
}

/// Splits a path into its directory and its last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Returns the changed paths, and the directories above them that are new or gone.
fn with_changed_directories<'a>(
    changed: &'a [Vec<u8>],
    before: &WorkTree,
    now: &WorkTree,
) -> Vec<&'a [u8]> {
    let is_directory =
        |tree: &WorkTree, path: &[u8]| matches!(tree.get(path), Some(WorkTreeNode::Directory));
    let mut names = BTreeSet::new();
    for path in changed {
        let mut path = path.as_slice();
        while names.insert(path) {
            path = split(path).0;
            // A directory in both trees keeps its name in the kernel. Otherwise the current
            // directory of a process that works there would become invalid.
            if path.is_empty() || is_directory(before, path) && is_directory(now, path) {
                break;
            }
        }
    }
    names.into_iter().collect()
}
