//! Finds names in directories.

use std::sync::Arc;

use cachewfs_format::RepoName;

use super::{Attr, Fs, FsError, Node};
use crate::ino::{Area, Ino, Tree};
use crate::repository::{RepoError, Repository, ResolvedName, is_probed};
use crate::traffic::Purpose;
use crate::view::{FileContent, StaticFile, StaticNode, WorkTreeNode};

/// The directory with the bare repositories that older clones borrow from. No listing has it.
pub(super) const OBJECTS: &[u8] = b".objects";
/// The git directory in the work tree of a repository.
pub(super) const DOT_GIT: &[u8] = b".git";
/// The bare repository in the git directory. No listing has it, so that a program that reads every
/// file, such as `grep -r`, doesn't fetch all packs.
pub(super) const INNER: &[u8] = b"cachewfs";
/// The index in the git directory. Its bytes are known only once the work tree is loaded.
pub(super) const INDEX: &[u8] = b"index";

impl Fs {
    /// Finds `name` in the directory `parent`, and counts a lookup of the inode found.
    pub(crate) async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        let parent = self.loaded(self.inodes.get(parent)?).await?;
        let node = self.child(&parent, name).await?;
        let attr = node.attr();
        if let Node::WorkTreeFile { repository, .. } = &node
            && repository.view().generation.loaded_work_tree().is_none()
        {
            // The file was found without the index, in which the next process would find it.
            self.repositories.view_changed.notify_one();
        }
        self.inodes.remember(attr.ino, node);
        Ok(attr)
    }

    /// Returns the attributes of an inode.
    pub(crate) fn getattr(&self, ino: Ino) -> Result<Attr, FsError> {
        Ok(self.inodes.get(ino)?.attr())
    }

    /// Returns the target of a symbolic link.
    pub(crate) async fn readlink(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        match self.inodes.get(ino)? {
            Node::WorkTreeFile { file, .. } if file.is_symlink => Ok(file.target().await?),
            _ => Err(FsError::NoEntry),
        }
    }

    /// Loads the repository that `node` stands for, if it isn't loaded. Other nodes stay as they
    /// are.
    pub(super) async fn loaded(&self, node: Node) -> Result<Node, FsError> {
        match node {
            Node::Unloaded { area, name } => self.repository(area, &name).await,
            node => Ok(node),
        }
    }

    pub(super) async fn child(&self, parent: &Node, name: &[u8]) -> Result<Node, FsError> {
        match parent {
            Node::Names { area, prefix } => self.named(*area, prefix, name).await,
            // The callers load the directory first.
            Node::Unloaded { .. } => Err(FsError::NoEntry),
            Node::TreeDirectory {
                repository,
                tree,
                path,
            } => tree_child(repository, *tree, &join(path, name)).await,
            Node::WorkTreeDirectory { repository, path } => {
                work_tree_child(repository, path, name).await
            }
            Node::TreeFile { .. } | Node::WorkTreeFile { .. } => Err(FsError::NotADirectory),
        }
    }

    async fn named(&self, area: Area, prefix: &str, name: &[u8]) -> Result<Node, FsError> {
        if area == Area::Root && prefix.is_empty() && name == OBJECTS {
            return Ok(Node::Names {
                area: Area::Objects,
                prefix: String::new(),
            });
        }
        let name = std::str::from_utf8(name).map_err(|_| FsError::NoEntry)?;
        if prefix.is_empty() {
            return self.host(area, name).await;
        }
        let full = format!("{prefix}/{name}");
        let repo = RepoName::parse(&full).map_err(|_| FsError::NoEntry)?;
        if repo.as_str() == full {
            return self.repository(area, &repo).await;
        }
        // `parse` has dropped a ".git" at the end.
        match (area, self.repository(area, &repo).await?) {
            (Area::Root, Node::WorkTreeDirectory { repository, .. }) => {
                Ok(tree_root(repository, Tree::Bare))
            }
            _ => Err(FsError::NoEntry),
        }
    }

    /// Finds the repository `name`, or the directory of names that it is.
    async fn repository(&self, area: Area, name: &RepoName) -> Result<Node, FsError> {
        match self.repositories.find(name).await {
            Ok(ResolvedName::Directory) => {
                let prefix = name.to_string();
                Ok(Node::Names { area, prefix })
            }
            Ok(ResolvedName::Repository(repository)) => Ok(top_of(area, repository)),
            Err(RepoError::NotFound { .. }) => Err(FsError::NoEntry),
            Err(error) => Err(error.into()),
        }
    }

    async fn host(&self, area: Area, name: &str) -> Result<Node, FsError> {
        RepoName::check_host(name).map_err(|_| FsError::NoEntry)?;
        let found = Node::Names {
            area,
            prefix: name.to_owned(),
        };
        // Without a request, if a repository of the host is known. So the mount works offline.
        if self.repositories.has_names_below(name) {
            return Ok(found);
        }
        if !is_probed(name) && self.repositories.has_host(name).await? {
            Ok(found)
        } else {
            Err(FsError::NoEntry)
        }
    }
}

/// Returns the top directory of a repository in an area.
pub(super) fn top_of(area: Area, repository: Arc<Repository>) -> Node {
    match area {
        Area::Root => Node::WorkTreeDirectory {
            repository,
            path: Vec::new(),
        },
        Area::Objects => tree_root(repository, Tree::Objects),
    }
}

/// Returns the root directory of a small tree.
pub(super) fn tree_root(repository: Arc<Repository>, tree: Tree) -> Node {
    Node::TreeDirectory {
        repository,
        tree,
        path: Vec::new(),
    }
}

pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        name.to_vec()
    } else {
        [path, b"/", name].concat()
    }
}

async fn tree_child(
    repository: &Arc<Repository>,
    tree: Tree,
    path: &[u8],
) -> Result<Node, FsError> {
    let view = repository.view();
    if tree == Tree::Git && path == INNER {
        return Ok(tree_root(Arc::clone(repository), Tree::Inner));
    }
    if tree == Tree::Git && path == INDEX {
        if !view.generation.has_work_tree() {
            return Err(FsError::NoEntry);
        }
        let work_tree = view.generation.work_tree(Purpose::Demand).await?;
        let file = StaticFile {
            content: FileContent::Bytes(Arc::clone(work_tree.index())),
            mtime: work_tree.index_mtime(),
        };
        return Ok(tree_file(repository, tree, path, file));
    }
    match view.tree(tree).get(path) {
        None => Err(FsError::NoEntry),
        Some(node) => Ok(tree_node(repository, tree, path, node)),
    }
}

/// Returns the node of a file or directory of a small tree.
pub(super) fn tree_node(
    repository: &Arc<Repository>,
    tree: Tree,
    path: &[u8],
    node: &StaticNode,
) -> Node {
    match node {
        StaticNode::File(file) => tree_file(repository, tree, path, file.clone()),
        StaticNode::Directory => Node::TreeDirectory {
            repository: Arc::clone(repository),
            tree,
            path: path.to_vec(),
        },
    }
}

pub(super) fn tree_file(
    repository: &Arc<Repository>,
    tree: Tree,
    path: &[u8],
    file: StaticFile,
) -> Node {
    Node::TreeFile {
        repository: Arc::clone(repository),
        tree,
        path: path.to_vec(),
        file,
    }
}

async fn work_tree_child(
    repository: &Arc<Repository>,
    path: &[u8],
    name: &[u8],
) -> Result<Node, FsError> {
    if path.is_empty() && name == DOT_GIT {
        return Ok(tree_root(Arc::clone(repository), Tree::Git));
    }
    if name.eq_ignore_ascii_case(DOT_GIT) {
        // No index contains the name. git looks for it in each directory that it is started in, and
        // git 2.54 and later exit if the lookup fails with another error.
        return Err(FsError::NoEntry);
    }
    let path = join(path, name);
    loop {
        let generation = repository.view().generation;
        let found = generation.find_in_work_tree(&path).await?;
        // `find_in_work_tree` registers the name, and a switch invalidates the registered names. If
        // the view switched before the registration, the kernel would keep the old answer for ever.
        // So the lookup starts again.
        if Arc::ptr_eq(&generation, &repository.view().generation) {
            let found = found.ok_or(FsError::NoEntry)?;
            return Ok(work_tree_node(repository, path, found));
        }
    }
}

pub(super) fn work_tree_node(
    repository: &Arc<Repository>,
    path: Vec<u8>,
    found: WorkTreeNode,
) -> Node {
    let repository = Arc::clone(repository);
    match found {
        WorkTreeNode::Directory => Node::WorkTreeDirectory { repository, path },
        WorkTreeNode::File(file) => Node::WorkTreeFile {
            repository,
            file,
            path,
        },
    }
}
