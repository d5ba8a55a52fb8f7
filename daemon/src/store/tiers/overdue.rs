//! Questions to the bucket that an older answer is at hand for: a bucket that is silent keeps nobody waiting
//! for long.

use std::collections::HashSet;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::debug;

use super::Tiers;
use crate::store::TierError;
use crate::store::key::Key;

/// How long the older answer isn't good enough.
const PATIENCE: Duration = Duration::from_millis(1500);
/// The same while another question has been without an answer for longer.
const LITTLE_PATIENCE: Duration = Duration::from_millis(100);

/// The objects whose answer somebody didn't wait for any longer.
#[derive(Clone, Debug, Default)]
pub(super) struct Overdue(Arc<Mutex<HashSet<Key>>>);

impl Overdue {
    /// What `ask` finds out about `key`; `None` if that takes long, or already did for somebody else. It
    /// goes on then, so it should note what it finds out.
    fn wait<T: Send + 'static>(
        &self,
        runtime: &Handle,
        key: &Key,
        ask: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let patience = {
            let overdue = self.lock();
            if overdue.contains(key) {
                return None;
            }
            if overdue.is_empty() {
                PATIENCE
            } else {
                LITTLE_PATIENCE
            }
        };
        let (answer, answered) = sync_channel(1);
        let asked = Asked {
            overdue: self.clone(),
            key: key.clone(),
        };
        runtime.spawn_blocking(move || {
            // Nobody may wait for it any longer.
            answer.send(ask()).ok();
            drop(asked);
        });
        match answered.recv_timeout(patience) {
            Ok(answer) => Some(answer),
            // The daemon stops.
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                let mut overdue = self.lock();
                // Whoever answers after this look takes the key off the list after it is on it.
                let answer = answered.try_recv();
                if answer.is_err() {
                    overdue.insert(key.clone());
                }
                answer.ok()
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tiers {
    /// What `ask` finds out about `key` in the bucket; what a copy says, if there is one, where the bucket takes
    /// long, is away or refuses the daemon: that tells nothing of what is there.
    pub(super) fn ask_or_copy<T: Send + 'static>(
        &self,
        key: &Key,
        copy: Option<T>,
        ask: impl FnOnce() -> Result<Option<T>, TierError> + Send + 'static,
    ) -> Result<Option<T>, TierError> {
        if copy.is_none() {
            return ask();
        }
        match self.overdue.wait(&self.fetcher.runtime, key, ask) {
            None => {
                debug!(%key, "A copy has to do: the bucket takes long");
                Ok(copy)
            }
            Some(Err(error)) if error.is_of_bucket() => {
                debug!(%key, %error, "A copy has to do");
                Ok(copy)
            }
            Some(found) => found,
        }
    }
}

/// A question; however it ends, it isn't overdue afterwards.
struct Asked {
    overdue: Overdue,
    key: Key,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.overdue.lock().remove(&self.key);
    }
}
