//! The registry of all repositories that the daemon works on.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cachewfs_format::RepoName;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::bundles::Bundles;
use super::freshness::{Checker, Checks};
use super::handle::Repository;
use super::lfs::MAX_LFS_RUNS;
use super::schedule::{JobLimits, Schedule};
use super::worker::Worker;
use super::{MirrorState, RepositoryError, Status};
use crate::base::random_fraction;
use crate::config::{Config, LiveConfig};
use crate::metrics::Metrics;
use crate::mirror::{Credentials, Git, Upstream, is_mirror, mirror_path};
use crate::publish::Publisher;
use crate::repository::disk_usage::DiskUsage;

/// At most this many requests wait in the queue of one repository.
const MAX_WAITING: usize = 1024;

/// At most this many requests read mirrors at once, each with a git process. They take
/// milliseconds, so more at once would only slow each other down.
const MAX_QUERIES: usize = 16;

/// All repositories that the daemon works on, and the parts that their tasks share.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(super) config: Arc<LiveConfig>,
    pub(super) git: Git,
    pub(super) publisher: Publisher,
    pub(super) stop: CancellationToken,
    /// The client for upstreams that speak HTTP. It follows no redirects.
    client: reqwest::Client,
    /// The credentials for upstreams, by host.
    credentials: BTreeMap<String, Arc<Credentials>>,
    pub(super) schedule: Arc<Schedule>,
    /// Permits to check whether upstream has changed, by host. A host that stalls delays only its
    /// own repositories, and long jobs delay no check.
    check_permits: Mutex<BTreeMap<String, Arc<Semaphore>>>,
    pub(super) tasks: TaskTracker,
    pub(super) bundles: Bundles,
    /// Permits for requests that read mirrors.
    pub(super) query_permits: Semaphore,
    /// Permits to make LFS archives.
    pub(super) lfs_permits: Semaphore,
    metrics: Arc<Metrics>,
    disk: Arc<DiskUsage>,
    pub(super) repositories: Mutex<HashMap<RepoName, Arc<Repository>>>,
}

impl Registry {
    pub(crate) fn new(
        config: Arc<LiveConfig>,
        git: Git,
        publisher: Publisher,
        (credentials, stop): (BTreeMap<String, Arc<Credentials>>, CancellationToken),
    ) -> Result<Arc<Self>, reqwest::Error> {
        let now = config.now();
        // The proxies of the environment apply here, because they apply to git, too.
        let client = reqwest::Client::builder()
            .connect_timeout(now.git_http.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let schedule = Schedule::new(JobLimits {
            jobs: now.jobs.updates,
            jobs_per_host: now.jobs.updates_per_host,
            publishes: now.jobs.publishes,
        });
        Ok(Arc::new(Self {
            client,
            credentials,
            schedule,
            query_permits: Semaphore::new(MAX_QUERIES),
            lfs_permits: Semaphore::new(MAX_LFS_RUNS),
            bundles: Bundles::new(now.data_dir.tmp().join("bundles")),
            check_permits: Mutex::default(),
            disk: Arc::new(DiskUsage::of(&now)),
            config,
            git,
            metrics: publisher.metrics(),
            publisher,
            stop,
            tasks: TaskTracker::new(),
            repositories: Mutex::default(),
        }))
    }

    /// Returns the upstream of `repo`, or why `repo` can't be mirrored.
    pub(crate) fn check(&self, repo: &RepoName) -> Result<Upstream, RepositoryError> {
        // The mirror of `a/b.git/c` would lie inside the mirror of `a/b`.
        let parents = repo
            .path()
            .rsplit_once('/')
            .map_or("", |(parents, _)| parents);
        if parents
            .split('/')
            .any(|segment| segment.to_ascii_lowercase().ends_with(".git"))
        {
            return Err(RepositoryError::NestedInGit { repo: repo.clone() });
        }
        let config = self.config.now();
        if config.canonical(repo.clone()) != *repo {
            return Err(RepositoryError::OtherSpelling { repo: repo.clone() });
        }
        let upstream = Upstream::of(repo, &config.upstreams, &self.client);
        let upstream = upstream.ok_or_else(|| {
            let host = repo.host().to_owned();
            RepositoryError::UnknownHost { host }
        })?;
        Ok(match self.credentials.get(repo.host()) {
            Some(credentials) => upstream.with_credentials(Arc::clone(credentials)),
            None => upstream,
        })
    }

    /// Returns the repository, and starts its task if it doesn't run. Counts as a use of the
    /// mirror.
    pub(crate) fn open(
        self: &Arc<Self>,
        name: &RepoName,
    ) -> Result<Arc<Repository>, RepositoryError> {
        let repository = self.start(name, Instant::now())?;
        repository.note_use();
        Ok(repository)
    }

    /// Returns the repository. If its task doesn't run, starts it. Without requests, the task's
    /// first run is at `first_run`.
    pub(super) fn start(
        self: &Arc<Self>,
        name: &RepoName,
        first_run: Instant,
    ) -> Result<Arc<Repository>, RepositoryError> {
        let upstream = self.check(name)?;
        if self.stop.is_cancelled() {
            return Err(RepositoryError::Stopping);
        }
        // The lock is held until the task is listed, so that a mirror never has two tasks.
        let mut repositories = self.repositories.lock();
        if let Some(repository) = repositories.get(name) {
            return Ok(Arc::clone(repository));
        }
        let mirror = mirror_path(&self.config.now().data_dir.mirrors(), name);
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
        let checks = Checks::new(Checker {
            config: Arc::clone(&self.config),
            git: self.git.clone(),
            permits,
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        });
        let repository = Repository::new(
            name.clone(),
            (upstream, mirror),
            Status::new(state, first_run),
            (checks, requests),
        );
        let repository = Arc::new(repository);
        repositories.insert(name.clone(), Arc::clone(&repository));
        let worker = Worker::new(Arc::clone(self), Arc::clone(&repository), receiver);
        self.tasks.spawn(worker.run());
        Ok(repository)
    }

    /// Returns whether the limit of repositories without a mirror is reached. Without the limit, a
    /// program that invents names could fill the memory and upstream's log.
    fn has_too_many_new(&self, repositories: &HashMap<RepoName, Arc<Repository>>) -> bool {
        let limit = self.config.now().mirrors.max_new;
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
        let repositories = self.repositories.lock();
        repositories.get(name).cloned()
    }

    pub(super) fn forget(&self, name: &RepoName) {
        self.repositories.lock().remove(name);
    }

    /// Returns all repositories whose tasks run, sorted by name.
    pub(crate) fn all(&self) -> Vec<Arc<Repository>> {
        let repositories = self.repositories.lock();
        let mut all: Vec<_> = repositories.values().cloned().collect();
        all.sort_by(|left, right| left.name.cmp(&right.name));
        all
    }

    /// Starts the tasks of all mirrors on disk. Their first updates are spread over
    /// `fetch_interval`.
    pub(crate) fn open_existing(self: &Arc<Self>) -> std::io::Result<()> {
        let root = self.config.now().data_dir.mirrors();
        let mut found = Vec::new();
        find_mirrors(&root, &mut found)?;
        let (now, count) = (Instant::now(), found.len() as f64);
        for (index, path) in found.into_iter().enumerate() {
            let name = path.strip_prefix(&root).ok().and_then(Path::to_str);
            let name = name.and_then(|name| RepoName::parse(name).ok());
            // If all began at once, upstream would get a burst of requests. A request for a
            // repository starts its run earlier anyway.
            let share = (index as f64 + random_fraction()) / count;
            let first_run = now + self.config.now().fetch_interval.mul_f64(share);
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

    /// Starts the task that measures the disk periodically.
    pub(crate) fn watch_disk(&self) {
        let disk = Arc::clone(&self.disk);
        self.tasks.spawn(disk.watch(self.stop.clone()));
    }

    pub(crate) fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    pub(crate) fn disk(&self) -> &DiskUsage {
        &self.disk
    }

    /// Returns the configured upstream hosts.
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.config.now().upstreams.keys().cloned().collect()
    }

    /// Returns whether `If-Match` pins a download (`if_match_pins`).
    pub(crate) fn does_if_match_pin(&self) -> bool {
        self.config.now().if_match_pins
    }

    /// Returns the configuration that is in force now.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.now()
    }

    pub(crate) fn live_config(&self) -> Arc<LiveConfig> {
        Arc::clone(&self.config)
    }

    /// Returns the permits to check whether upstreams at `host` have changed.
    fn check_permits(&self, host: &str) -> Arc<Semaphore> {
        let mut turns = self.check_permits.lock();
        let new = || Arc::new(Semaphore::new(self.config.now().jobs.updates_per_host));
        Arc::clone(turns.entry(host.to_owned()).or_insert_with(new))
    }

    pub(crate) fn git(&self) -> Git {
        self.git.clone()
    }

    pub(crate) fn client(&self) -> reqwest::Client {
        self.client.clone()
    }

    /// Returns the tracker of tasks that the daemon waits for. These tasks must end when it stops.
    pub(crate) fn tasks(&self) -> TaskTracker {
        self.tasks.clone()
    }

    /// Returns a token that is cancelled when the daemon stops.
    pub(crate) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits until the daemon stops.
    pub(crate) async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Waits for all tasks, which end when the daemon stops.
    pub(crate) async fn join(&self) {
        self.tasks.close();
        self.tasks.wait().await;
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
