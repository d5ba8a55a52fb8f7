//! Lists directories.
//!
//! A listing is made when the kernel reads its first entry, not when it opens the directory. While
//! the kernel reads entries, it holds the directory's lock. It needs this lock also to drop the
//! names that a new snapshot changed. So each entry that the kernel caches is either from the new
//! snapshot, or is dropped afterwards.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cachewfs_format::RepoName;
use parking_lot::Mutex;

use super::lookup::{DOT_GIT, INDEX, join, top_of, tree_file, tree_root, work_tree_node};
use super::{Area, Attr, Fs, Ino, Node, Tree};
use crate::error::FsError;
use crate::repository::{Repository, View};
use crate::traffic::Purpose;
use crate::view::StaticNode;

/// An entry of a directory.
#[derive(Debug)]
pub(crate) struct DirectoryEntry {
    /// The name.
    pub name: Vec<u8>,
    /// The attributes of the file or directory.
    pub attr: Attr,
    pub(super) node: Node,
}

/// The entries of a directory at one moment, `.` and `..` first.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) entries: Vec<DirectoryEntry>,
    pub(super) made_from: MadeFrom,
}

/// The origin of a listing.
#[derive(Debug)]
pub(super) enum MadeFrom {
    /// A view of the directory's repository.
    View(Arc<Repository>, View),
    /// The names of repositories.
    Names,
    /// Something that another process showed, and this one took over.
    AnotherProcess,
}

impl Listing {
    /// Returns whether the listing is of the current view. The kernel must not cache one that
    /// isn't.
    pub(crate) fn is_current(&self) -> bool {
        match &self.made_from {
            MadeFrom::View(repository, made_from) => {
                let now = repository.view();
                Arc::ptr_eq(&now.generation, &made_from.generation)
                    && Arc::ptr_eq(&now.objects, &made_from.objects)
            }
            MadeFrom::Names => true,
            MadeFrom::AnotherProcess => false,
        }
    }
}

/// The open directories by handle.
#[derive(Debug, Default)]
pub(super) struct OpenDirectories {
    next: AtomicU64,
    open: Mutex<HashMap<u64, OpenDirectory>>,
}

#[derive(Clone, Debug)]
pub(super) struct OpenDirectory {
    pub(super) ino: Ino,
    pub(super) listing: Option<Arc<Listing>>,
}

impl OpenDirectories {
    /// Returns the next handle, and all open directories by handle.
    pub(super) fn all(&self) -> (u64, HashMap<u64, OpenDirectory>) {
        (self.next.load(Ordering::Relaxed), self.open.lock().clone())
    }

    /// Takes over the open directories of another process.
    pub(super) fn restore(&self, next: u64, directories: Vec<(u64, OpenDirectory)>) {
        self.next.store(next, Ordering::Relaxed);
        self.open.lock().extend(directories);
    }
}

impl Fs {
    /// Opens a directory. Returns its handle.
    pub(crate) fn opendir(&self, ino: Ino) -> Result<u64, FsError> {
        self.inodes.get(ino)?;
        let handle = self.open_directories.next.fetch_add(1, Ordering::Relaxed);
        let directory = OpenDirectory { ino, listing: None };
        self.open_directories.open.lock().insert(handle, directory);
        Ok(handle)
    }

    /// Returns the listing of an open directory, from which the kernel reads entries from `offset`
    /// on.
    ///
    /// An offset of 0 makes a new listing. Later offsets continue in it, so that no entry is
    /// missed.
    pub(crate) async fn listing(
        &self,
        (ino, handle): (Ino, u64),
        offset: u64,
    ) -> Result<Arc<Listing>, FsError> {
        let known = self.open_directories.open.lock().get(&handle).cloned();
        // A process that was killed may have opened it. If the directory is still the same, its new
        // listing has the same order.
        let directory = known.unwrap_or(OpenDirectory { ino, listing: None });
        if let Some(listing) = directory.listing.filter(|_| offset > 0) {
            return Ok(listing);
        }
        let listing = Arc::new(self.list(directory.ino).await?);
        if let Some(directory) = self.open_directories.open.lock().get_mut(&handle) {
            directory.listing = Some(Arc::clone(&listing));
        }
        Ok(listing)
    }

    async fn list(&self, ino: Ino) -> Result<Listing, FsError> {
        let directory = self.loaded(self.inodes.get(ino)?).await?;
        // Taken before the children are read. If the view switches in between, the listing then
        // counts as outdated, which is safe. The other way round, an old listing could count as
        // current.
        let made_from = match directory.repository() {
            Some(repository) => MadeFrom::View(Arc::clone(repository), repository.view()),
            None => MadeFrom::Names,
        };
        let mut entries = Vec::new();
        for name in [&b"."[..], b".."] {
            // The kernel uses only the type of these two, so the parent's own attributes will do.
            let (name, node) = (name.to_vec(), directory.clone());
            entries.push(DirectoryEntry {
                name,
                attr: node.attr(),
                node,
            });
        }
        let children = self.children(&directory).await?;
        entries.extend(children.into_iter().map(|(name, node)| DirectoryEntry {
            name,
            attr: node.attr(),
            node,
        }));
        Ok(Listing { entries, made_from })
    }

    /// Counts a lookup of an entry, because the kernel got it with its attributes.
    pub(crate) fn remember(&self, entry: &DirectoryEntry) {
        self.inodes.remember(entry.attr.ino, entry.node.clone());
    }

    /// Closes a directory.
    pub(crate) fn releasedir(&self, handle: u64) {
        self.open_directories.open.lock().remove(&handle);
    }

    async fn children(&self, directory: &Node) -> Result<Vec<(Vec<u8>, Node)>, FsError> {
        match directory {
            Node::Names { area, prefix } => Ok(self.names(*area, prefix).await),
            // The caller loads the directory first.
            Node::Unloaded { .. } => Ok(Vec::new()),
            Node::TreeDirectory {
                repository,
                tree,
                path,
            } => tree_children(self, directory, repository, *tree, path).await,
            Node::WorkTreeDirectory { repository, path } => {
                work_tree_children(repository, path).await
            }
            Node::TreeFile { .. } | Node::WorkTreeFile { .. } => Err(FsError::NotADirectory),
        }
    }

    /// Returns the hosts, or the known names below `prefix`.
    ///
    /// A repository that isn't known yet appears once somebody looks up its name.
    async fn names(&self, area: Area, prefix: &str) -> Vec<(Vec<u8>, Node)> {
        let mut names = self.repositories.names_below(prefix);
        if prefix.is_empty() {
            // If the daemons never answered, only the hosts of known repositories appear.
            let hosts = self.repositories.hosts().await.unwrap_or_default();
            names.extend(hosts.iter().cloned());
            names.sort();
            names.dedup();
        }
        let child = |name: String| {
            let full = if prefix.is_empty() {
                name.clone()
            } else {
                format!("{prefix}/{name}")
            };
            (name.into_bytes(), self.listed(area, full))
        };
        names.into_iter().map(child).collect()
    }

    /// Returns what a listing shows for a known name.
    pub(super) fn listed(&self, area: Area, full: String) -> Node {
        let known = RepoName::parse(&full).ok();
        let known = known.filter(|_| self.repositories.is_known(&full));
        match known {
            None => Node::Names { area, prefix: full },
            Some(name) => match self.repositories.loaded(&name) {
                Some(repository) => top_of(area, repository),
                None => Node::Unloaded { area, name },
            },
        }
    }
}

async fn tree_children(
    fs: &Fs,
    directory: &Node,
    repository: &Arc<Repository>,
    tree: Tree,
    path: &[u8],
) -> Result<Vec<(Vec<u8>, Node)>, FsError> {
    let view = repository.view();
    let mut children: Vec<(Vec<u8>, Node)> = tree
        .nodes(&view)
        .children(path)
        .into_iter()
        .map(|(name, node)| {
            let path = join(path, name);
            let node = match node {
                StaticNode::File(file) => tree_file(repository, tree, &path, file.clone()),
                StaticNode::Directory => Node::TreeDirectory {
                    repository: Arc::clone(repository),
                    tree,
                    path,
                },
            };
            (name.to_vec(), node)
        })
        .collect();
    if tree == Tree::Git && path.is_empty() {
        match fs.child(directory, INDEX).await {
            Ok(index) => children.push((INDEX.to_vec(), index)),
            Err(FsError::NoEntry) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(children)
}

async fn work_tree_children(
    repository: &Arc<Repository>,
    path: &[u8],
) -> Result<Vec<(Vec<u8>, Node)>, FsError> {
    let mut children = Vec::new();
    if path.is_empty() {
        let git = tree_root(Arc::clone(repository), Tree::Git);
        children.push((DOT_GIT.to_vec(), git));
    }
    let generation = repository.view().generation;
    let work_tree = generation.work_tree(Purpose::Demand).await?;
    children.extend(work_tree.children(path).into_iter().map(|(name, found)| {
        let node = work_tree_node(repository, join(path, &name), found);
        (name, node)
    }));
    Ok(children)
}
