//! [`OtherPublish`]: a publish of another daemon that this one waits for.

use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::Pointer;
use tokio::time::sleep;

use super::RepositoryError;
use super::context::Context;
use super::handle::Repository;
use crate::base::random_fraction;
use crate::store::{LeaseEvent, Store, StoreError};

/// Returns how long until the lease is read again. Random, so that waiting daemons don't read it
/// all at once.
pub(super) fn poll_interval() -> Duration {
    Duration::from_millis(750).mul_f64(1.0 + 0.5 * random_fraction())
}

/// A publish of another daemon that this one waits for.
pub(super) struct OtherPublish {
    context: Arc<Context>,
    repository: Arc<Repository>,
    store: Store,
    /// The pointer when the wait began.
    before: Result<Option<Pointer>, StoreError>,
}

impl OtherPublish {
    /// Begins a wait. `shelf` selects the part of the store that is published. Counts the wait in
    /// the metrics.
    pub(super) async fn of(
        context: &Arc<Context>,
        repository: &Arc<Repository>,
        shelf: fn(&Store) -> Store,
    ) -> Result<Arc<Self>, RepositoryError> {
        let (context, repository) = (Arc::clone(context), Arc::clone(repository));
        context.metrics.leases.note(LeaseEvent::Waited);
        let read = move || {
            let store = shelf(context.publisher.store());
            let before = store.pointer(&repository.name);
            Self {
                context,
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
                context,
                repository,
                store,
                before,
            } = &*this;
            let holder = context.publisher.leases.holder(store, &repository.name)?;
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
