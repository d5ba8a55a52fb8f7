//! [`Context`]: the parts of the daemon that the work on repositories shares.

use std::collections::BTreeMap;
use std::sync::Arc;

use cachewfs_format::RepoName;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::RepositoryError;
use super::disk_usage::DiskUsage;
use super::schedule::{JobLimits, Schedule};
use crate::config::LiveConfig;
use crate::http_client::http_client;
use crate::metrics::Metrics;
use crate::mirror::{Credentials, Git, Upstream};
use crate::publish::Publisher;

/// The parts of the daemon that the work on repositories shares. It knows no repository.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Arc<LiveConfig>,
    pub(crate) git: Git,
    pub(crate) publisher: Publisher,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) disk: Arc<DiskUsage>,
    /// The client for upstreams that speak HTTP. It follows no redirects.
    pub(crate) client: reqwest::Client,
    /// The credentials for upstreams, by host.
    credentials: BTreeMap<String, Arc<Credentials>>,
    pub(super) schedule: Arc<Schedule>,
    /// The tasks that the daemon waits for. They must end when it stops.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the daemon stops.
    pub(crate) stop: CancellationToken,
}

impl Context {
    pub(crate) fn new(
        config: Arc<LiveConfig>,
        git: Git,
        publisher: Publisher,
        (credentials, stop): (BTreeMap<String, Arc<Credentials>>, CancellationToken),
    ) -> Result<Arc<Self>, reqwest::Error> {
        let now = config.now();
        // The proxies of the environment apply here, because they apply to git, too.
        let client = http_client(|builder| {
            builder
                .connect_timeout(now.git_http.connect_timeout)
                .redirect(reqwest::redirect::Policy::none())
        })?;
        let schedule = Schedule::new(JobLimits {
            jobs: now.jobs.updates,
            jobs_per_host: now.jobs.updates_per_host,
            publishes: now.jobs.publishes,
        });
        Ok(Arc::new(Self {
            git,
            metrics: publisher.metrics(),
            publisher,
            disk: Arc::new(DiskUsage::of(&now)),
            config,
            client,
            credentials,
            schedule,
            tasks: TaskTracker::new(),
            stop,
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

    /// Starts the task that measures the disk periodically.
    pub(crate) fn watch_disk(&self) {
        let disk = Arc::clone(&self.disk);
        self.tasks.spawn(disk.watch(self.stop.clone()));
    }

    /// Waits for all tasks, which end when the daemon stops.
    pub(crate) async fn join(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
