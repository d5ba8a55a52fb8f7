//! [`Hosts`]: the hosts that the daemons mirror from, as far as the mount knows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::RepoError;

/// How long the list of hosts is used before it is fetched again.
const HOSTS_TTL: Duration = Duration::from_secs(30);

/// The list of hosts, and when the daemons were asked for it.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    pub(super) state: Mutex<HostsState>,
    /// The lock that lets one request run at a time.
    pub(super) asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
pub(super) struct HostsState {
    pub(super) list: Option<Arc<Vec<String>>>,
    /// When the daemons last answered, and their error if the answer was one.
    pub(super) answered: Option<(Instant, Option<RepoError>)>,
}

impl Hosts {
    /// Creates the list from what an earlier mount kept on disk.
    pub(super) fn new(kept: Option<Vec<String>>) -> Self {
        let state = HostsState {
            list: kept.map(Arc::new),
            answered: None,
        };
        Self {
            state: Mutex::new(state),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// Takes over the list of another process.
    pub(super) fn restore(&self, list: Vec<String>) {
        self.state.lock().list = Some(Arc::new(list));
    }

    /// Returns the list, however old it is.
    pub(super) fn known(&self) -> Option<Arc<Vec<String>>> {
        self.state.lock().list.clone()
    }

    /// Returns what the daemons answered, if that is recent.
    pub(super) fn recent(&self) -> Option<Result<Arc<Vec<String>>, RepoError>> {
        let state = self.state.lock();
        let (at, error) = state.answered.as_ref()?;
        if at.elapsed() >= HOSTS_TTL {
            return None;
        }
        match (&state.list, error) {
            (Some(list), _) => Some(Ok(Arc::clone(list))),
            (None, Some(error)) => Some(Err(error.clone())),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
impl Hosts {
    /// Makes the list older.
    pub(super) fn age(&self, by: Duration) {
        if let Some((at, _)) = &mut self.state.lock().answered {
            *at -= by;
        }
    }
}
