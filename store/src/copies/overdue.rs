//! [`Overdue`]: requests to the bucket that have an older answer at hand, so that nobody waits long
//! for a silent bucket.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::debug;

use super::Copies;
use crate::TierError;
use crate::key::Key;

/// How long a caller waits for the bucket before it takes the older answer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long it waits while the bucket is late with the answer to another request.
const LITTLE_PATIENCE: Duration = Duration::from_millis(100);

/// The objects with a request for which no caller waits any longer.
#[derive(Clone, Debug, Default)]
pub(super) struct Overdue(Arc<Mutex<HashSet<Key>>>);

impl Overdue {
    /// Returns the answer of `ask` about `key`. Returns `None` if it takes too long, or a request
    /// for `key` is overdue already.
    ///
    /// `ask` goes on in the background. So it should remember the answer where the next caller
    /// finds it.
    async fn wait<T: Send + 'static>(
        &self,
        runtime: &Handle,
        key: &Key,
        ask: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let patience = {
            let overdue = self.0.lock();
            if overdue.contains(key) {
                return None;
            }
            if overdue.is_empty() {
                PATIENCE
            } else {
                LITTLE_PATIENCE
            }
        };
        let (answer, mut answered) = oneshot::channel();
        let in_flight = InFlight {
            overdue: self.clone(),
            key: key.clone(),
        };
        runtime.spawn(async move {
            // The receiver is gone if the caller waits no longer.
            answer.send(ask.await).ok();
            drop(in_flight);
        });
        if let Ok(answer) = timeout(patience, &mut answered).await {
            // An error: the daemon is stopping, and the runtime has dropped the task.
            return answer.ok();
        }
        let mut overdue = self.0.lock();
        // The lock makes this look and the insertion one step. A task that answers later removes
        // the key under the same lock, and so after the insertion. Otherwise the key could stay
        // for ever.
        let answer = answered.try_recv();
        if answer.is_err() {
            overdue.insert(key.clone());
        }
        answer.ok()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl Copies {
    /// Asks the bucket about `key`. If there is a copy, serves it when the bucket takes too long,
    /// is unreachable or refuses the daemon: none of this says anything about the object.
    pub(super) async fn ask_or_copy<T: Send + 'static>(
        &self,
        key: &Key,
        copy: Option<T>,
        ask: impl Future<Output = Result<Option<T>, TierError>> + Send + 'static,
    ) -> Result<Option<T>, TierError> {
        if copy.is_none() {
            return ask.await;
        }
        match self.overdue.wait(&self.fetcher.runtime, key, ask).await {
            None => {
                debug!(%key, "Serving a local copy: the bucket takes too long");
                Ok(copy)
            }
            Some(Err(error)) if error.is_bucket_failure() => {
                debug!(%key, %error, "Serving a local copy: the bucket failed");
                Ok(copy)
            }
            Some(found) => found,
        }
    }
}

/// A request that is in flight. However it ends, its object isn't overdue afterwards.
struct InFlight {
    overdue: Overdue,
    key: Key,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.overdue.0.lock().remove(&self.key);
    }
}
