//! The hosts that the daemons mirror from: an old list at once, a newer one behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cachewfs_base::jitter;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::{RepoError, Repositories};
use crate::traffic::Purpose;

/// How long the list of hosts is used before it is fetched again.
const HOSTS_TTL: Duration = Duration::from_secs(30);

/// The list of hosts, and when the daemons were asked for it.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    state: Mutex<HostsState>,
    /// The lock that lets one request run at a time.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct HostsState {
    list: Option<Arc<Vec<String>>>,
    /// When the daemons last answered, and their error if the answer was one.
    answered: Option<(Instant, Option<RepoError>)>,
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
    fn recent(&self) -> Option<Result<Arc<Vec<String>>, RepoError>> {
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

impl Repositories {
    /// Returns the hosts for a listing. Waits for the daemons only if no list is known.
    pub(crate) async fn hosts(self: &Arc<Self>) -> Result<Arc<Vec<String>>, RepoError> {
        match self.hosts.known() {
            Some(list) => {
                self.start_asking_for_hosts();
                Ok(list)
            }
            None => self.newest_hosts(Purpose::Demand).await,
        }
    }

    /// Returns whether the daemons mirror from `host`. Waits for them only if the list that is
    /// known doesn't have it.
    pub(crate) async fn has_host(self: &Arc<Self>, host: &str) -> Result<bool, RepoError> {
        let has = |list: &[String]| list.iter().any(|known| known == host);
        if self.hosts.known().is_some_and(|list| has(&list)) {
            self.start_asking_for_hosts();
            return Ok(true);
        }
        Ok(has(&self.newest_hosts(Purpose::Demand).await?))
    }

    /// Asks for the hosts, unless the daemons answered within [`HOSTS_TTL`] or are known not to
    /// answer. If they don't answer, an old list is better than none.
    pub(crate) async fn newest_hosts(
        &self,
        purpose: Purpose,
    ) -> Result<Arc<Vec<String>>, RepoError> {
        let or_known = |error: RepoError| self.hosts.known().ok_or(error);
        if let Some(answer) = self.hosts.recent() {
            return answer;
        }
        if let Some(error) = self.reachability.recent_outage() {
            return or_known(error);
        }
        let _one_at_a_time = self.hosts.asking.lock().await;
        // The request before this one may have told.
        if let Some(answer) = self.hosts.recent() {
            return answer;
        }
        if let Some(error) = self.reachability.recent_outage() {
            return or_known(error);
        }
        self.ask_for_hosts(purpose).await.or_else(or_known)
    }

    /// Asks the daemons for the hosts. The caller holds [`Hosts::asking`].
    async fn ask_for_hosts(&self, purpose: Purpose) -> Result<Arc<Vec<String>>, RepoError> {
        let source = &self.segments.backend().source;
        let answer = self.reachability.observe(source.hosts(purpose)).await;
        let mut state = self.hosts.state.lock();
        match answer {
            Ok(list) => {
                let list = Arc::new(list);
                let is_new = state.list.as_ref() != Some(&list);
                state.list = Some(Arc::clone(&list));
                state.answered = Some((Instant::now(), None));
                drop(state);
                if is_new {
                    self.keep_hosts(&list);
                }
                Ok(list)
            }
            Err(error) => {
                let error = RepoError::Hosts(Arc::new(error));
                if !error.is_outage() {
                    state.answered = Some((Instant::now(), Some(error.clone())));
                }
                Err(error)
            }
        }
    }

    /// Asks for the hosts in the background, if the list is old and nobody asks already.
    pub(crate) fn start_asking_for_hosts(self: &Arc<Self>) {
        let is_due = self.hosts.recent().is_none() && self.reachability.recent_outage().is_none();
        if !is_due || self.hosts.asking.try_lock().is_err() {
            return;
        }
        let repositories = Arc::clone(self);
        let backend = self.segments.backend();
        let ending = backend.ending.clone();
        backend.tasks.spawn(async move {
            // The error is noted where `cachewfs status` finds it.
            let asking = repositories.newest_hosts(Purpose::Background);
            drop(ending.run_until_cancelled(asking).await);
        });
    }

    /// Asks again and again while the daemons don't answer, so that the mount finds out by itself
    /// when they do. Runs until the mount ends.
    pub(crate) async fn watch_outages(self: Arc<Self>) {
        let ending = &self.segments.backend().ending;
        while ending
            .run_until_cancelled(self.outlast_outage())
            .await
            .is_some()
        {}
    }

    /// Waits for an outage, then for its end.
    async fn outlast_outage(&self) {
        self.reachability.outage_began().await;
        while self.reachability.outage().is_some() {
            sleep(jitter(self.options.poll_interval * 4 / 3)).await;
            let _one_at_a_time = self.hosts.asking.lock().await;
            // The outcome is noted in `reachability`.
            self.ask_for_hosts(Purpose::Background).await.ok();
        }
    }
}
