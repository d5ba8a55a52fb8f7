//! Writes down the repositories that a mount shows, and shows them again in another process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cachewfs_base::chain;
use cachewfs_format::{RepoName, Toc};
use parking_lot::{Mutex, RwLock};

use super::load::FirstPoll;
use super::{Repositories, Repository, View};
use crate::fetch::Tail;
use crate::fs::{Ino, Node, Tree};
use crate::hand_over::{
    FileState, HandOverError, Loader, NamesState, RepositoryState, Saver, Text,
};
use crate::traffic::Purpose;
use crate::view::{Generation, StaticNode};

impl Repositories {
    /// Adds all repositories and names to a state.
    pub(crate) fn save(&self, saver: &mut Saver) -> Result<(), HandOverError> {
        for repository in self.resolved() {
            let mut state = save(&repository, saver)?;
            let failed_reads = &self.segments.backend().failed_reads;
            state.failed_reads = failed_reads.of(&repository.name);
            saver.add_repository(state);
        }
        saver.state.names = NamesState {
            directories: self.slots.directories(),
            hosts: self.hosts.known().map(|hosts| hosts.to_vec()),
            outage: self.reachability.save(),
        };
        Ok(())
    }

    /// Returns the hosts, and the names of repositories and of directories that are remembered.
    pub(crate) fn remembered_names(&self) -> Vec<String> {
        let mut names = self.slots.all_known();
        names.extend(self.slots.directories().iter().map(ToString::to_string));
        names.extend(
            self.hosts
                .known()
                .iter()
                .flat_map(|hosts| hosts.iter().cloned()),
        );
        names
    }

    /// Remembers the answers about names that another process remembered.
    pub(crate) fn restore_names(&self, names: NamesState) {
        for name in &names.directories {
            self.slot(name).note_directory();
        }
        if let Some(hosts) = names.hosts {
            self.hosts.restore(hosts);
        }
        if let Some(outage) = names.outage {
            self.reachability.restore(outage);
        }
    }

    /// Loads the snapshot of a repository in a state, from the cache, or else from a daemon.
    async fn load_again(
        &self,
        state: &RepositoryState,
        loader: &Loader,
    ) -> Result<Arc<Generation>, HandOverError> {
        let (_, toc) = Toc::decode(loader.blob(state.toc)?).map_err(HandOverError::state)?;
        let tail = Tail {
            bytes: Bytes::new(),
            archive_len: state.archive_len,
            path: state.path.as_str().into(),
            snapshot: state.snapshot,
            etag: state.etag.clone(),
            notice: state.notice.clone(),
        };
        let loaded = Generation::of_toc(&state.name, (tail, toc), &self.segments);
        let cant_load = |error: &dyn std::error::Error| {
            HandOverError::state(format!("can't load {}: {}", state.name, chain(error)))
        };
        let generation = loaded.await.map_err(|error| cant_load(&error))?;
        if state.has_loaded_work_tree {
            let work_tree = generation.work_tree(Purpose::Background).await;
            work_tree.map_err(|error| cant_load(&error))?;
        }
        Ok(Arc::new(generation))
    }

    /// Shows a repository as the state has it. Loads nothing anew that an earlier message had.
    pub(crate) async fn adopt(
        &self,
        state: &RepositoryState,
        loader: &Loader,
    ) -> Result<Arc<Repository>, HandOverError> {
        let known = self.loaded(&state.name);
        let is_usable = |known: &Arc<Generation>| {
            known.etag == state.etag
                && (known.loaded_work_tree().is_some() || !state.has_loaded_work_tree)
        };
        let generation = known.as_ref().map(|known| known.view().generation);
        let generation = match generation.filter(is_usable) {
            Some(generation) => generation,
            None => self.load_again(state, loader).await?,
        };
        for Text(path) in &state.searched {
            generation.note_search(path);
        }
        let mut objects = generation.objects.clone();
        let mut superseded = HashMap::new();
        for (
            FileState {
                path,
                content,
                mtime,
            },
            seconds,
        ) in &state.superseded
        {
            objects.add_file(&path.0, loader.content(content)?, *mtime);
            let left = Instant::now().checked_sub(Duration::from_secs(*seconds));
            superseded.insert(path.0.clone(), left.unwrap_or_else(Instant::now));
        }
        let view = View {
            generation,
            objects: Arc::new(objects),
        };
        let failed_reads = &self.segments.backend().failed_reads;
        failed_reads.restore(&state.name, state.failed_reads.clone());
        if let Some(known) = known {
            known.show(view);
            known.note_error(state.last_error.clone());
            known.catch_ups.store(state.catch_ups, Ordering::Relaxed);
            known.checked_at.store(state.checked_at, Ordering::Relaxed);
            *known.superseded.lock() = superseded;
            return Ok(known);
        }
        let repository = Arc::new(Repository {
            name: state.name.clone(),
            view: RwLock::new(view),
            catch_ups: AtomicU64::new(state.catch_ups),
            checked_at: AtomicU64::new(state.checked_at),
            last_error: Mutex::new(state.last_error.clone()),
            unhydrated: Mutex::default(),
            catching_up: tokio::sync::Mutex::default(),
            superseded: Mutex::new(superseded),
        });
        self.slot(&state.name).adopt(&repository);
        self.slots.note_known(&state.name);
        Ok(repository)
    }

    /// Starts the background tasks of an adopted repository.
    pub(crate) fn follow_adopted(self: &Arc<Self>, repository: &Arc<Repository>) {
        self.start_following(repository, FirstPoll::Later);
        self.hide_superseded_later(repository);
    }
}

impl Repository {
    /// Returns all names in the small trees, each with its node.
    pub(crate) fn small_nodes(self: &Arc<Self>) -> Vec<(Tree, Vec<u8>, Node)> {
        let view = self.view();
        let nodes_of = |tree: Tree| {
            let names = tree.nodes(&view).nodes().map(|(path, node)| {
                let (repository, path) = (Arc::clone(self), path.to_vec());
                let node = match node {
                    StaticNode::Directory => Node::TreeDirectory {
                        repository,
                        tree,
                        path: path.clone(),
                    },
                    StaticNode::File(file) => Node::TreeFile {
                        repository,
                        tree,
                        path: path.clone(),
                        file: file.clone(),
                    },
                };
                (tree, path, node)
            });
            names.collect::<Vec<_>>()
        };
        let trees = std::iter::once(Tree::Git).chain(Tree::BARE);
        trees.flat_map(nodes_of).collect()
    }

    /// Returns the names that this process shows otherwise than the process that showed `shown`:
    /// with another inode, anew, or no more.
    pub(crate) fn stale_names(
        self: &Arc<Self>,
        shown: &[(Tree, Text, Ino)],
    ) -> Vec<(RepoName, Tree, Vec<u8>)> {
        let ours: BTreeMap<_, _> = shown_names(self).collect();
        let theirs: BTreeMap<_, _> = shown
            .iter()
            .map(|(tree, path, ino)| ((*tree, path.0.clone()), *ino))
            .collect();
        let differs = |name: &(Tree, Vec<u8>)| ours.get(name) != theirs.get(name);
        let names = ours
            .keys()
            .chain(theirs.keys())
            .filter(|name| differs(name));
        names
            .map(|(tree, path)| (self.name.clone(), *tree, path.clone()))
            .collect()
    }
}

/// Returns all names in the small trees of a repository, each with its inode.
fn shown_names(repository: &Arc<Repository>) -> impl Iterator<Item = ((Tree, Vec<u8>), Ino)> {
    let nodes = repository.small_nodes().into_iter();
    nodes.map(|(tree, path, node)| ((tree, path), node.ino()))
}

fn save(repository: &Arc<Repository>, saver: &mut Saver) -> Result<RepositoryState, HandOverError> {
    let View {
        generation,
        objects,
    } = repository.view();
    let (_, toc) = generation.toc.encode().map_err(HandOverError::state)?;
    let left = repository.superseded.lock().clone();
    let mut superseded = Vec::new();
    for (path, file) in objects.files() {
        if generation.objects.get(path).is_none() {
            let file = FileState {
                path: path.into(),
                content: saver.content(&file.content)?,
                mtime: file.mtime,
            };
            let seconds = left.get(path).map_or(0, |left| left.elapsed().as_secs());
            superseded.push((file, seconds));
        }
    }
    let shown = shown_names(repository).map(|((tree, path), ino)| (tree, Text(path), ino));
    Ok(RepositoryState {
        name: repository.name.clone(),
        toc: saver.blob(&toc.into()),
        path: generation.path.to_string(),
        etag: generation.etag.clone(),
        archive_len: generation.archive_len,
        snapshot: generation.snapshot,
        notice: generation.notice.clone(),
        has_loaded_work_tree: generation.loaded_work_tree().is_some(),
        searched: generation.searched().into_iter().map(Text).collect(),
        superseded,
        shown: shown.collect(),
        catch_ups: repository.catch_ups.load(Ordering::Relaxed),
        checked_at: repository.checked_at.load(Ordering::Relaxed),
        last_error: repository.last_error(),
        failed_reads: Vec::new(),
    })
}
