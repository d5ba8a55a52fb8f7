//! Lists directories.
//!
//! A listing is made when the kernel reads its first entry, not when it opens the directory. While
//! the kernel reads entries, it holds the directory's lock. It needs this lock also to drop the
//! names that a new snapshot changed. So each entry that the kernel caches is either from the new
//! snapshot, or is dropped afterwards.

use std::sync::Arc;

use cachewfs_format::RepoName;

use super::listing::{DirectoryEntry, Listing, MadeFrom, OpenDirectory};
use super::lookup::{DOT_GIT, INDEX, join, top_of, tree_node, tree_root, work_tree_node};
use super::{Fs, FsError, Node};
use crate::ino::{Area, Ino, Tree};
use crate::repository::Repository;
use crate::traffic::Purpose;

impl Fs {
    /// Opens a directory. Returns its handle.
    pub(crate) fn opendir(&self, ino: Ino) -> Result<u64, FsError> {
        self.inodes.get(ino)?;
        let directory = OpenDirectory { ino, listing: None };
        Ok(self.open_directories.open(directory))
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
        let known = self.open_directories.get(handle);
        // A process that was killed may have opened it. If the directory is still the same, its new
        // listing has the same order.
        let directory = known.unwrap_or(OpenDirectory { ino, listing: None });
        if let Some(listing) = directory.listing.filter(|_| offset > 0) {
            return Ok(listing);
        }
        let ino = directory.ino;
        let made = Arc::new(self.list(ino).await?);
        let listing = Some(Arc::clone(&made));
        self.open_directories
            .replace(handle, OpenDirectory { ino, listing });
        Ok(made)
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
        self.open_directories.close(handle);
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
    let mut children: Vec<(Vec<u8>, Node)> = view
        .tree(tree)
        .children(path)
        .into_iter()
        .map(|(name, node)| {
            let node = tree_node(repository, tree, &join(path, name), node);
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
