//! Asks the daemons for the hosts: an old list at once, a newer one behind it.

use std::sync::Arc;
use std::time::Instant;

use cachewfs_base::jitter;
use tokio::time::sleep;

use super::{RepoError, Repositories};
use crate::traffic::Purpose;

impl Repositories {
    /// Returns the hosts that the daemons mirror from, however old the list is, without a request.
    pub(crate) fn known_hosts(&self) -> Vec<String> {
        self.hosts.known().as_deref().cloned().unwrap_or_default()
    }

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

    /// Asks for the hosts, unless the daemons answered within `HOSTS_TTL` or are known not to
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

    /// Asks the daemons for the hosts. The caller holds `Hosts::asking`.
    async fn ask_for_hosts(&self, purpose: Purpose) -> Result<Arc<Vec<String>>, RepoError> {
        let request = self.source().hosts(purpose);
        let answer = self.reachability.observe(request).await;
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
        self.tasks().spawn_until_end(async move {
            // The error is noted where `cachewfs status` finds it.
            repositories.newest_hosts(Purpose::Background).await.ok();
        });
    }

    /// Asks again and again while the daemons don't answer, so that the mount finds out by itself
    /// when they do. Runs until the mount ends.
    pub(super) async fn watch_outages(self: Arc<Self>) {
        let outlast = || self.tasks().until_end(self.outlast_outage());
        while outlast().await.is_some() {}
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
