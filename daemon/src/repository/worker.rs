//! The task of one repository: it alone touches the mirror.
//!
//! Requests that come while a run is under way wait for the next one, so each gets the result of
//! an update that began after it asked. No work hangs off the life of a request.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::registry::{Outcome, Registry, Repository};
use super::{Freshness, MirrorState, RepositoryError, Status};
use crate::app::tmp_directory;
use crate::error_chain::chain;
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
    /// Whether somebody asks for work to be done now, not only for what is fresh.
    fn is_wish(&self) -> bool {
        match self {
            Self::Publish(_) => true,
            Self::Update(_) => false,
        }
    }

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
        loop {
            let next_run = Instant::from_std(self.repository.status().next_run);
            let mut waiting = Vec::new();
            tokio::select! {
                () = stop.cancelled() => return,
                Some(request) = self.requests.recv() => waiting.push(request),
                () = sleep_until(next_run) => {}
            }
            if waiting.is_empty() && self.is_unknown_and_unused() {
                self.registry.forget(&self.repository.name);
                return;
            }
            if let Some(error) = self.known_failure(&waiting) {
                for request in waiting {
                    request.answer(&Err(error.clone()));
                }
                continue;
            }
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.run_once(&mut waiting) => ended,
            };
            self.note(&ended);
            if let Some(outcome) = ended.transpose() {
                for request in waiting {
                    request.answer(&outcome);
                }
            }
        }
    }

    /// Whether upstream has no such repository and nobody has asked for it since it said so: names
    /// that are only guessed must not fill the memory.
    fn is_unknown_and_unused(&self) -> bool {
        self.repository.status().failure.is_some_and(|failure| {
            failure.error.is_not_found() && self.repository.used_at() <= failure.last_try
        }) && !is_mirror(&self.repository.mirror)
    }

    /// Why the last update failed, if it is too early to try again just because somebody asks for
    /// what is fresh; who wishes a publish gets a try.
    fn known_failure(&self, waiting: &[Request]) -> Option<RepositoryError> {
        if waiting.is_empty() || waiting.iter().any(Request::is_wish) {
            return None;
        }
        let failure = self.repository.status().failure?;
        failure.holds_mirror_back().then_some(failure.error)
    }

    /// Takes over all that wait, then updates and publishes; `None` if it is too early to try again
    /// a publish that failed.
    async fn run_once(
        &mut self,
        waiting: &mut Vec<Request>,
    ) -> Result<Option<Published>, RepositoryError> {
        let permit = self.network_permit().await?;
        while let Ok(request) = self.requests.try_recv() {
            waiting.push(request);
        }
        if waiting.iter().any(Request::is_wish) {
            self.repository.change_status(Status::forget_tries);
        }
        let began = std::time::Instant::now();
        let updated = self.update().await;
        let found = updated.clone().map(|()| Freshness::Fresh);
        self.repository.checks.note(began, found);
        updated?;
        drop(permit);
        for request in waiting.extract_if(.., |request| !request.is_wish()) {
            if let Request::Update(sender) = request {
                drop(sender.send(Ok(())));
            }
        }
        if waiting.is_empty() {
            let failure = self.repository.status().failure;
            if failure.is_some_and(|failure| failure.holds_publish_back()) {
                return Ok(None);
            }
            sleep(self.registry.config.publish_delay).await;
        }
        let permits = Arc::clone(&self.registry.publishes);
        let _permit = permits
            .acquire_owned()
            .await
            .map_err(|_| RepositoryError::Stopping)?;
        self.publish().await.map(Some)
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
            let (config, mirror) = (&registry.config, &repository.mirror);
            if !is_mirror(mirror) {
                repository.change_status(|status| status.state = MirrorState::Cloning);
                let places = (tmp_directory(config), mirror.clone());
                let limit = config.git.clone_timeout;
                clone_mirror(
                    &registry.git,
                    &repository.upstream,
                    (&places.0, &places.1),
                    limit,
                )?;
                info!(repo = %repository.name, "Cloned {}", repository.name);
            } else if sweep {
                remove_stale_locks(mirror).map_err(|source| crate::mirror::MirrorError::Io {
                    path: mirror.clone(),
                    source,
                })?;
            }
            let what = (mirror.as_path(), &config.namespaces[..]);
            update(&registry.git, &repository.upstream, what, &config.git)?;
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
                name,
                upstream,
                mirror,
                feed,
                ..
            } = &*repository;
            let published: Published =
                registry
                    .publisher
                    .publish(name, (upstream, mirror), feed)
                    .map_err(|error| RepositoryError::Publish(Arc::new(error)))?;
            if let Err(error) = maintain(&registry.git, mirror, &registry.config.git) {
                let error = chain(&error);
                warn!(repo = %name, error, "Maintaining the mirror of {name} failed");
            }
            Ok(published)
        });
        let outcome = result.await.map_err(|_| RepositoryError::Stopping)?;
        self.may_have_locks |= outcome.is_err();
        outcome
    }

    fn note(&self, ended: &Result<Option<Published>, RepositoryError>) {
        let repo = &self.repository.name;
        if let Err(error) = ended {
            warn!(%repo, error = chain(error), "Bringing {repo} up to date failed");
        }
        let config = &self.registry.config;
        let interval = config.fetch_interval;
        self.repository.change_status(|status| match ended {
            Ok(Some(published)) => status.succeed(*published, interval),
            Ok(None) => status.succeed_in_part(interval),
            Err(error) => status.fail(error.clone(), interval, &config.mirrors),
        });
    }
}
