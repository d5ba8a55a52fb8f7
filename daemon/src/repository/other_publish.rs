//! Waiting while another daemon publishes what this one would.
//!
//! The repository's task does the rest of its work meanwhile: git clients get their updates, and no turn
//! to publish is held.

use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::Pointer;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::info;

use super::RepositoryError;
use super::backoff::chance;
use super::followed::Repository;
use super::registry::Registry;
use super::worker::{Request, Worker};
use crate::metrics::{JobClass, LeaseEvent};
use crate::store::{Store, StoreError};

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// What there is to publish has to be looked at again.
    Done,
    /// The repository is to be forgotten.
    Forgotten,
}

/// How long until the other daemon is looked at again. Those who wait don't look all at once.
fn pause() -> Duration {
    Duration::from_millis(750).mul_f64(1.0 + 0.5 * chance())
}

impl Worker {
    /// Waits while `holder` publishes the repository, or until it seems to have gone. Updates that are
    /// asked for are made, and what else is asked for is put with what waits.
    pub(super) async fn while_published_elsewhere(
        &mut self,
        mut holder: Arc<str>,
        waiting: &mut Vec<Request>,
    ) -> Result<Waited, RepositoryError> {
        let repo = self.repository.name.clone();
        info!(%repo, %holder, "Waiting for {holder}, which publishes {repo}");
        let other = OtherPublish::of(&self.registry, &self.repository, Store::clone).await?;
        let mut next_look = Instant::now() + pause();
        loop {
            if waiting.iter().any(Request::is_end) {
                return Ok(Waited::Forgotten);
            }
            let job = self.wait(JobClass::Publish);
            let waits_for = Arc::clone(&holder);
            self.repository
                .change_status(|status| status.wait_for(waits_for));
            let stop = self.registry.stop.clone();
            tokio::select! {
                () = stop.cancelled() => return Err(RepositoryError::Stopping),
                Some(request) = self.requests.recv() => {
                    let is_end = request.is_end();
                    waiting.push(request);
                    drop(job);
                    if !is_end {
                        self.update_for(waiting).await?;
                    }
                }
                () = sleep_until(next_look) => {
                    match other.holder().await? {
                        Some(present) => holder = present,
                        None => return Ok(Waited::Done),
                    }
                    next_look = Instant::now() + pause();
                }
            }
        }
    }
}

/// The publish of another daemon.
pub(super) struct OtherPublish {
    registry: Arc<Registry>,
    repository: Arc<Repository>,
    store: Store,
    /// What was published when the wait began.
    before: Result<Option<Pointer>, StoreError>,
}

impl OtherPublish {
    /// Of a shelf of the repository; this counts as a wait.
    pub(super) async fn of(
        registry: &Arc<Registry>,
        repository: &Arc<Repository>,
        shelf: fn(&Store) -> Store,
    ) -> Result<Arc<Self>, RepositoryError> {
        let (registry, repository) = (Arc::clone(registry), Arc::clone(repository));
        registry.metrics().leases.note(LeaseEvent::Waited);
        let read = move || {
            let store = shelf(registry.publisher.store());
            let before = store.pointer(&repository.name);
            Self {
                registry,
                repository,
                store,
                before,
            }
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.map(Arc::new).map_err(|_| RepositoryError::Stopping)
    }

    /// Who is at it; `None` if nobody may be any more, or something else is published by now.
    pub(super) async fn holder(self: &Arc<Self>) -> Result<Option<Arc<str>>, RepositoryError> {
        let this = Arc::clone(self);
        let look = move || {
            let Self {
                registry,
                repository,
                store,
                before,
            } = &*this;
            let holder = registry.publisher.leases.holder(store, &repository.name)?;
            let now = store.pointer(&repository.name);
            let has_moved = matches!((before, now), (Ok(before), Ok(now)) if *before != now);
            (!has_moved).then_some(holder)
        };
        let looked = tokio::task::spawn_blocking(look).await;
        looked.map_err(|_| RepositoryError::Stopping)
    }

    /// Waits until nobody is at it.
    pub(super) async fn end(self: Arc<Self>) -> Result<(), RepositoryError> {
        while self.holder().await?.is_some() {
            sleep(pause()).await;
        }
        Ok(())
    }
}
