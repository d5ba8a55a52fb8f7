//! Writes down the repositories that a mount shows, and shows them again in another process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cachewfs_base::chain;
use cachewfs_format::{RepoName, Toc};

use super::load::FirstPoll;
use super::{Repositories, Repository};
use crate::fetch::Tail;
use crate::ino::{Ino, Tree};
use crate::saved_state::{
    FileState, HandOverError, Loader, NamesState, RepositoryState, Saver, Text,
};
use crate::traffic::Purpose;
use crate::view::{Generation, StaticNode, View};

impl Repositories {
    /// Adds all repositories and names to a state.
    pub(crate) fn save(&self, saver: &mut Saver) -> Result<(), HandOverError> {
        for repository in self.resolved() {
            let mut state = save(&repository, saver)?;
            state.failed_reads = self.failed_reads.of(&repository.name);
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
        let loaded = Generation::load(
            &state.name,
            (tail, toc),
            &self.segments,
            Purpose::Background,
        );
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

    /// Shows repositories as the state has them, and returns them in the same order. Loads nothing
    /// anew that an earlier message had.
    pub(crate) async fn adopt(
        &self,
        states: &[RepositoryState],
        loader: &Loader,
    ) -> Result<Vec<Arc<Repository>>, HandOverError> {
        let mut adopted = Vec::new();
        for state in states {
            adopted.push(self.adopt_one(state, loader).await?);
        }
        Ok(adopted)
    }

    async fn adopt_one(
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
        self.failed_reads
            .restore(&state.name, state.failed_reads.clone());
        let repository = if let Some(known) = known {
            known.show(view);
            known
        } else {
            let new = Arc::new(Repository::new(&state.name, view));
            self.slot(&state.name).adopt(&new);
            self.slots.note_known(&state.name);
            new
        };
        repository.note_error(state.last_error.clone());
        let (catch_ups, checked_at) = (state.catch_ups, state.checked_at);
        repository.catch_ups.store(catch_ups, Ordering::Relaxed);
        repository.checked_at.store(checked_at, Ordering::Relaxed);
        *repository.superseded.lock() = superseded;
        Ok(repository)
    }

    /// Starts the background tasks of an adopted repository.
    pub(crate) fn follow_adopted(self: &Arc<Self>, repository: &Arc<Repository>) {
        self.start_following(repository, FirstPoll::Later);
        self.hide_superseded_later(repository);
    }
}

impl Repository {
    /// Returns the names that this process shows otherwise than the process that showed `shown`:
    /// with another inode, anew, or no more.
    pub(crate) fn stale_names(
        &self,
        shown: &[(Tree, Text, Ino)],
    ) -> Vec<(RepoName, Tree, Vec<u8>)> {
        let ours: BTreeMap<_, _> = shown_names(self).into_iter().collect();
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
fn shown_names(repository: &Repository) -> Vec<((Tree, Vec<u8>), Ino)> {
    let (repo, view) = (&repository.name, repository.view());
    let names_of = |tree: Tree| {
        view.tree(tree).nodes().map(move |(path, node)| {
            let ino = match node {
                StaticNode::Directory => Ino::of_tree_directory(repo, tree, path),
                StaticNode::File(file) => {
                    Ino::of_tree_file(repo, tree, path, file.content.digest())
                }
            };
            ((tree, path.to_vec()), ino)
        })
    };
    Tree::ALL.into_iter().flat_map(names_of).collect()
}

fn save(repository: &Repository, saver: &mut Saver) -> Result<RepositoryState, HandOverError> {
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
    let shown = shown_names(repository)
        .into_iter()
        .map(|((tree, path), ino)| (tree, Text(path), ino));
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
