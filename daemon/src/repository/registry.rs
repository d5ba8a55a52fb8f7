//! The registry of all repositories that the daemon works on.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cachewfs_format::RepoName;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tracing::warn;

use super::checks::Checks;
use super::context::Context;
use super::handle::Repository;
use super::lfs::LfsRuns;
use super::repositories::Repositories;
use super::worker::Worker;
use super::{MirrorState, RepositoryError, Status};
use crate::base::random_fraction;
use crate::mirror::{is_mirror, mirror_path};

/// At most this many requests wait in the queue of one repository.
const MAX_WAITING: usize = 1024;

/// All repositories that the daemon works on.
#[derive(Debug)]
pub(crate) struct Registry {
    context: Arc<Context>,
    lfs: Arc<LfsRuns>,
    /// Permits to check whether upstream has changed, by host. A host that stalls delays only its
    /// own repositories, and long jobs delay no check.
    check_permits: Mutex<BTreeMap<String, Arc<Semaphore>>>,
    repositories: Arc<Repositories>,
}

impl Registry {
    pub(crate) fn new(context: Arc<Context>, lfs: Arc<LfsRuns>) -> Self {
        Self {
            context,
            lfs,
            check_permits: Mutex::default(),
            repositories: Arc::default(),
        }
    }

    /// Returns the repository, and starts its task if it doesn't run. Counts as a use of the
    /// mirror.
    pub(crate) fn open(&self, name: &RepoName) -> Result<Arc<Repository>, RepositoryError> {
        let repository = self.start(name, Instant::now())?;
        repository.note_use();
        Ok(repository)
    }

    /// Returns the repository. If its task doesn't run, starts it. Without requests, the task's
    /// first run is at `first_run`.
    pub(super) fn start(
        &self,
        name: &RepoName,
        first_run: Instant,
    ) -> Result<Arc<Repository>, RepositoryError> {
        let upstream = self.context.check(name)?;
        if self.context.stop.is_cancelled() {
            return Err(RepositoryError::Stopping);
        }
        // The lock is held until the task is listed, so that a mirror never has two tasks.
        let mut repositories = self.repositories.0.lock();
        if let Some(repository) = repositories.get(name) {
            return Ok(Arc::clone(repository));
        }
        let mirror = mirror_path(&self.context.config.now().data_dir.mirrors(), name);
        let state = if is_mirror(&mirror) {
            MirrorState::Ready
        } else {
            MirrorState::Empty
        };
        if state == MirrorState::Empty && self.has_too_many_new(&repositories) {
            return Err(RepositoryError::TooManyNew);
        }
        let (requests, receiver) = mpsc::channel(MAX_WAITING);
        let permits = self.check_permits(name.host());
        let checks = Checks::new(Arc::clone(&self.context), permits);
        let repository = Repository::new(
            name.clone(),
            (upstream, mirror),
            Status::new(state, first_run),
            (checks, requests),
        );
        let repository = Arc::new(repository);
        repositories.insert(name.clone(), Arc::clone(&repository));
        let worker = Worker::new(
            Arc::clone(&self.context),
            Arc::clone(&self.repositories),
            Arc::clone(&self.lfs),
            Arc::clone(&repository),
            receiver,
        );
        self.context.tasks.spawn(worker.run());
        Ok(repository)
    }

    /// Returns whether the limit of repositories without a mirror is reached. Without the limit, a
    /// program that invents names could fill the memory and upstream's log.
    fn has_too_many_new(&self, repositories: &HashMap<RepoName, Arc<Repository>>) -> bool {
        let limit = self.context.config.now().mirrors.max_new;
        let is_new =
            |repository: &&Arc<Repository>| repository.status.borrow().state != MirrorState::Ready;
        // The cheap comparison first: each request for a new name comes here.
        repositories.len() >= limit && repositories.values().filter(is_new).count() >= limit
    }

    /// Notes that a client requests `name`.
    pub(crate) fn note_use(&self, name: &RepoName) {
        if let Some(repository) = self.find(name) {
            repository.note_use();
        }
    }

    /// Returns the repository, if its task runs.
    pub(crate) fn find(&self, name: &RepoName) -> Option<Arc<Repository>> {
        self.repositories.find(name)
    }

    /// Returns all repositories whose tasks run, sorted by name.
    pub(crate) fn all(&self) -> Vec<Arc<Repository>> {
        let repositories = self.repositories.0.lock();
        let mut all: Vec<_> = repositories.values().cloned().collect();
        all.sort_by(|left, right| left.name.cmp(&right.name));
        all
    }

    /// Starts the tasks of all mirrors on disk. Their first updates are spread over
    /// `fetch_interval`.
    pub(crate) fn open_existing(&self) -> std::io::Result<()> {
        let root = self.context.config.now().data_dir.mirrors();
        let mut found = Vec::new();
        find_mirrors(&root, &mut found)?;
        let (now, count) = (Instant::now(), found.len() as f64);
        for (index, path) in found.into_iter().enumerate() {
            let name = path.strip_prefix(&root).ok().and_then(Path::to_str);
            let name = name.and_then(|name| RepoName::parse(name).ok());
            // If all began at once, upstream would get a burst of requests. A request for a
            // repository starts its run earlier anyway.
            let share = (index as f64 + random_fraction()) / count;
            let first_run = now + self.context.config.now().fetch_interval.mul_f64(share);
            // Mirrors of hosts that are no longer configured stay on disk, unused.
            if let Some(name) = name
                && let Err(RepositoryError::OtherSpelling { repo }) = self.start(&name, first_run)
            {
                let path = path.display();
                warn!(
                    %repo,
                    %path,
                    "Not using the mirror {path}: the upstream of {repo} ignores case, so only \
                     names in lower case are used"
                );
            }
        }
        Ok(())
    }

    /// Returns the permits to check whether upstreams at `host` have changed.
    fn check_permits(&self, host: &str) -> Arc<Semaphore> {
        let mut turns = self.check_permits.lock();
        let new = || {
            Arc::new(Semaphore::new(
                self.context.config.now().jobs.updates_per_host,
            ))
        };
        Arc::clone(turns.entry(host.to_owned()).or_insert_with(new))
    }
}

fn find_mirrors(directory: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "git") && is_mirror(&path) {
            found.push(path);
        } else if entry.file_type()?.is_dir() {
            find_mirrors(&path, found)?;
        }
    }
    Ok(())
}
