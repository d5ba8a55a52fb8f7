//! Waits while another daemon publishes the repository.
//!
//! Meanwhile the repository's task goes on with its other work: it updates the mirror for git
//! clients, and holds no turn to publish.

use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::Pointer;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::info;

use super::RepositoryError;
use super::handle::Repository;
use super::registry::Registry;
use super::worker::{TaskRequest, Worker};
use crate::base::random_fraction;
use crate::metrics::JobClass;
use crate::store::{LeaseEvent, Store, StoreError};

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitOutcome {
    /// The other daemon has published or gone, so the task must look at the store again.
    Done,
    /// The repository is to be forgotten.
    Forgotten,
}

/// Returns how long until the lease is read again. Random, so that waiting daemons don't read it
/// all at once.
fn poll_interval() -> Duration {
    Duration::from_millis(750).mul_f64(1.0 + 0.5 * random_fraction())
}

impl Worker {
    /// Waits until `holder` has published the repository or seems to have gone.
    ///
    /// Serves requests for an update meanwhile. All other requests are added to `waiting`.
    pub(super) async fn while_published_elsewhere(
        &mut self,
        mut holder: Arc<str>,
        waiting: &mut Vec<TaskRequest>,
    ) -> Result<WaitOutcome, RepositoryError> {
        let repo = self.repository.name.clone();
        info!(%repo, %holder, "Waiting for the daemon {holder}, which publishes {repo}");
        let other = OtherPublish::of(&self.registry, &self.repository, Store::clone).await?;
        let mut next_look = Instant::now() + poll_interval();
        loop {
            if waiting.iter().any(TaskRequest::is_forget) {
                return Ok(WaitOutcome::Forgotten);
            }
            let job = self.wait(JobClass::Publish);
            let waits_for = Arc::clone(&holder);
            self.repository
                .change_status(|status| status.wait_for(waits_for));
            let stop = self.registry.stop.clone();
            tokio::select! {
                () = stop.cancelled() => return Err(RepositoryError::Stopping),
                Some(request) = self.requests.recv() => {
                    let is_forget = request.is_forget();
                    waiting.push(request);
                    drop(job);
                    if !is_forget {
                        self.update_for(waiting).await?;
                    }
                }
                () = sleep_until(next_look) => {
                    match other.holder().await? {
                        Some(present) => holder = present,
                        None => return Ok(WaitOutcome::Done),
                    }
                    next_look = Instant::now() + poll_interval();
                }
            }
        }
    }
}

/// A publish of another daemon that this one waits for.
pub(super) struct OtherPublish {
    registry: Arc<Registry>,
    repository: Arc<Repository>,
    store: Store,
    /// The pointer when the wait began.
    before: Result<Option<Pointer>, StoreError>,
}

impl OtherPublish {
    /// Begins a wait. `shelf` selects the part of the store that is published. Counts the wait in
    /// the metrics.
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

    /// Returns the daemon that publishes now. Returns `None` if its lease has ended, or if the
    /// pointer has changed since the wait began.
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
            // A new pointer ends the wait even if the lease is still held: something was published,
            // so the task must look again.
            let has_moved = matches!((before, now), (Ok(before), Ok(now)) if *before != now);
            (!has_moved).then_some(holder)
        };
        let looked = tokio::task::spawn_blocking(look).await;
        looked.map_err(|_| RepositoryError::Stopping)
    }

    /// Waits until no other daemon publishes.
    pub(super) async fn end(self: Arc<Self>) -> Result<(), RepositoryError> {
        while self.holder().await?.is_some() {
            sleep(poll_interval()).await;
        }
        Ok(())
    }
}
