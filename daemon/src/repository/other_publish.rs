//! [`OtherPublish`]: a publish of another daemon that this one waits for.

use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::Pointer;
use tokio::time::sleep;

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
    ) -> Self {
        context.metrics.leases.note(LeaseEvent::Waited);
        let store = shelf(context.publisher.store());
        let before = store.pointer(&repository.name).await;
        Self {
            context: Arc::clone(context),
            repository: Arc::clone(repository),
            store,
            before,
        }
    }

    /// Returns the daemon that publishes now. Returns `None` if its lease has ended, or if the
    /// pointer has changed since the wait began.
    pub(super) async fn holder(&self) -> Option<Arc<str>> {
        let (store, name) = (&self.store, &self.repository.name);
        let holder = self.context.publisher.leases.holder(store, name).await?;
        let now = store.pointer(name).await;
        // A new pointer ends the wait even if the lease is still held: something was published, so
        // the task must look again.
        let has_moved = matches!((&self.before, now), (Ok(before), Ok(now)) if *before != now);
        (!has_moved).then_some(holder)
    }

    /// Waits until no other daemon publishes.
    pub(super) async fn end(&self) {
        while self.holder().await.is_some() {
            sleep(poll_interval()).await;
        }
    }
}
