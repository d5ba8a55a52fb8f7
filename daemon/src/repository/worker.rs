//! The task of one repository: it alone touches the mirror.
//!
//! Requests that come while a run is under way wait for the next one, so each gets the result of
//! an update that began after it asked. No work hangs off the life of a request.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::registry::{Outcome, Registry, Repository};
use super::{Freshness, MirrorState, RepositoryError};
use crate::app::tmp_directory;
use crate::error_chain::chain;
use crate::metrics::{JobClass, JobEnd, RunningJob, WaitingJob};
use crate::mirror::{clone_mirror, head_commit, is_mirror, maintain, remove_stale_locks, update};
use crate::publish::Published;

/// How many jobs may talk to one upstream host at once.
#[derive(Clone, Debug)]
pub(super) struct Permits {
    updates: Arc<Semaphore>,
    clones: Arc<Semaphore>,
}

impl Permits {
    pub(super) fn new(jobs: usize) -> Self {
        Self {
            updates: Arc::new(Semaphore::new(jobs)),
            clones: Arc::new(Semaphore::new(jobs.div_ceil(2))),
        }
    }

    pub(super) fn updates(&self) -> Arc<Semaphore> {
        Arc::clone(&self.updates)
    }
}

/// What the task of a repository is asked for; the answer comes with the first run that begins after
/// it.
#[derive(Debug)]
pub(super) enum Request {
    /// An update, and the publish of what it brings.
    Publish(oneshot::Sender<Outcome>),
    /// An update.
    Update(oneshot::Sender<Result<(), RepositoryError>>),
}

impl Request {
    /// Tells who asked, who may have gone away, how the run ended.
    fn answer(self, outcome: &Outcome) {
        match self {
            Self::Publish(sender) => drop(sender.send(outcome.clone())),
            Self::Update(sender) => drop(sender.send(outcome.clone().map(drop))),
        }
    }
}

pub(super) struct Worker {
    registry: Arc<Registry>,
    repository: Arc<Repository>,
    permits: Permits,
    requests: mpsc::Receiver<Request>,
    /// Whether a killed git may have left locks.
    may_have_locks: bool,
}

impl Worker {
    pub(super) fn new(
        registry: Arc<Registry>,
        repository: Arc<Repository>,
        permits: Permits,
        requests: mpsc::Receiver<Request>,
    ) -> Self {
        Self {
            registry,
            repository,
            permits,
            requests,
            may_have_locks: true,
        }
    }

    pub(super) async fn run(mut self) {
        let stop = self.registry.stop.clone();
        let mut changes = self.registry.config.changes();
        loop {
            match self.registry.check(&self.repository.name) {
                Ok(upstream) => self.repository.set_upstream(upstream),
                Err(error) => return self.end_removed(&error),
            }
            let next_run = Instant::from_std(self.repository.status().next_run);
            let mut waiting = Vec::new();
            tokio::select! {
                () = stop.cancelled() => return,
                Some(request) = self.requests.recv() => waiting.push(request),
                Ok(()) = changes.changed() => {
                    let interval = self.registry.config.now().fetch_interval;
                    self.repository.change_status(|status| status.run_within(interval));
                    continue;
                }
                () = sleep_until(next_run) => {}
            }
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.run_once(&mut waiting) => outcome,
            };
            self.note(&outcome);
            let is_gone = matches!(&outcome, Err(error) if error.is_not_found())
                && !is_mirror(&self.repository.mirror);
            for request in waiting {
                request.answer(&outcome);
            }
            if is_gone {
                self.end_unknown(&outcome).await;
                return;
            }
        }
    }

    /// Takes over all that wait, then updates and publishes.
    async fn run_once(&mut self, waiting: &mut Vec<Request>) -> Outcome {
        let class = if is_mirror(&self.repository.mirror) {
            JobClass::Update
        } else {
            JobClass::Clone
        };
        let job = self.wait(class);
        let permit = self.network_permit().await?;
        let job = self.start(job);
        while let Ok(request) = self.requests.try_recv() {
            waiting.push(request);
        }
        let began = std::time::Instant::now();
        let updated = self.update().await;
        job.end(match &updated {
            Ok(()) => JobEnd::Done,
            Err(error) => JobEnd::Failed(error.failure_kind()),
        });
        let found = updated.clone().map(|()| Freshness::Fresh);
        self.repository.checks.note(began, found);
        updated?;
        drop(permit);
        for request in waiting.extract_if(.., |request| matches!(request, Request::Update(_))) {
            if let Request::Update(sender) = request {
                drop(sender.send(Ok(())));
            }
        }
        if waiting.is_empty() {
            sleep(self.registry.config.now().publish_delay).await;
        }
        let job = self.wait(JobClass::Publish);
        let permits = Arc::clone(&self.registry.publishes);
        let _permit = permits
            .acquire_owned()
            .await
            .map_err(|_| RepositoryError::Stopping)?;
        let job = self.start(job);
        let outcome = self.publish().await;
        job.end(match &outcome {
            Ok(published) if published.moved => JobEnd::Done,
            Ok(_) => JobEnd::Unchanged,
            Err(error) => JobEnd::Failed(error.failure_kind()),
        });
        outcome
    }

    /// Notes that a job waits for its turn.
    fn wait(&self, class: JobClass) -> WaitingJob {
        self.repository
            .change_status(|status| status.begin(class, false));
        WaitingJob::new(self.registry.metrics(), class)
    }

    /// Notes that the job's turn has come.
    fn start(&self, job: WaitingJob) -> RunningJob {
        let class = job.class();
        self.repository
            .change_status(|status| status.begin(class, true));
        job.start()
    }

    async fn network_permit(
        &self,
    ) -> Result<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>), RepositoryError> {
        let acquire = async |semaphore: &Arc<Semaphore>| {
            let permit = Arc::clone(semaphore).acquire_owned().await;
            permit.map_err(|_| RepositoryError::Stopping)
        };
        let clone = if is_mirror(&self.repository.mirror) {
            None
        } else {
            Some(acquire(&self.permits.clones).await?)
        };
        Ok((acquire(&self.permits.updates).await?, clone))
    }

    async fn update(&mut self) -> Result<(), RepositoryError> {
        let (registry, repository) = (Arc::clone(&self.registry), Arc::clone(&self.repository));
        let sweep = std::mem::replace(&mut self.may_have_locks, true);
        let result = tokio::task::spawn_blocking(move || {
            let (config, mirror) = (registry.config.now(), &repository.mirror);
            let upstream = repository.upstream();
            if !is_mirror(mirror) {
                repository.change_status(|status| status.state = MirrorState::Cloning);
                let places = (tmp_directory(&config), mirror.clone());
                let limit = config.git.clone_timeout;
                clone_mirror(&registry.git, &upstream, (&places.0, &places.1), limit)?;
                info!(repo = %repository.name, "Cloned {}", repository.name);
            } else if sweep {
                remove_stale_locks(mirror).map_err(|source| crate::mirror::MirrorError::Io {
                    path: mirror.clone(),
                    source,
                })?;
            }
            let what = (mirror.as_path(), &config.namespaces[..]);
            update(&registry.git, &upstream, what, &config.git)?;
            let head = head_commit(&registry.git, mirror)?;
            repository.change_status(|status| status.mirror_is_fresh(head));
            Ok(())
        });
        let result = result.await.map_err(|_| RepositoryError::Stopping)?;
        self.may_have_locks = result.is_err();
        result.map_err(|error| RepositoryError::Mirror(Arc::new(error)))
    }

    async fn publish(&mut self) -> Outcome {
        let (registry, repository) = (Arc::clone(&self.registry), Arc::clone(&self.repository));
        let result = tokio::task::spawn_blocking(move || -> Outcome {
            let Repository {
                name, mirror, feed, ..
            } = &*repository;
            let published: Published = registry
                .publisher
                .publish(name, (&repository.upstream(), mirror), feed)
                .map_err(|error| RepositoryError::Publish(Arc::new(error)))?;
            maintain(&registry.git, mirror, &registry.config.now().git)
                .map_err(|error| RepositoryError::Mirror(Arc::new(error)))?;
            Ok(published)
        });
        let outcome = result.await.map_err(|_| RepositoryError::Stopping)?;
        self.may_have_locks |= outcome.is_err();
        outcome
    }

    fn note(&self, outcome: &Outcome) {
        let repo = &self.repository.name;
        if let Err(error) = outcome {
            warn!(%repo, error = chain(error), "Bringing {repo} up to date failed");
        }
        let interval = self.registry.config.now().fetch_interval;
        self.repository
            .change_status(|status| status.end_run(outcome, interval));
    }

    /// The host is not configured any more. Its mirrors stay on disk, and what is published in the store.
    fn end_removed(mut self, error: &RepositoryError) {
        let repo = &self.repository.name;
        info!(%repo, "Stopped following {repo}: {error}");
        self.registry.forget(repo);
        while let Ok(request) = self.requests.try_recv() {
            request.answer(&Err(error.clone()));
        }
    }

    /// Upstream has no such repository: tells all who ask for a while, then forgets the name, so
    /// that names that are only guessed don't fill the memory.
    async fn end_unknown(mut self, outcome: &Outcome) {
        let until = Instant::from_std(self.repository.status().next_run);
        loop {
            tokio::select! {
                () = self.registry.stop.cancelled() => break,
                () = sleep_until(until) => break,
                Some(request) = self.requests.recv() => request.answer(outcome),
            }
        }
        self.registry.forget(&self.repository.name);
    }
}
