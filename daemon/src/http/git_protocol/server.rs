//! What all requests of git clients share: limits, counters, the way to upstream.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::pass_on::SharedAnswers;
use super::relay::{Limits, Relay};
use super::{GitHttpError, body};
use crate::app::tmp_directory;
use crate::config::Config;
use crate::mirror::Git;
use crate::repository::Registry;

/// What all requests of git clients share.
#[derive(Debug)]
pub(in crate::http) struct GitServer {
    pub(super) registry: Arc<Registry>,
    pub(super) git: Git,
    pub(super) tmp: PathBuf,
    pub(super) relay: Relay,
    /// Follows no redirects by itself, and asks no other place than the one it is told.
    pub(super) client: reqwest::Client,
    pub(super) shared: SharedAnswers,
    pub(in crate::http) counters: Counters,
    /// Requests that are received or answered.
    requests: Arc<Semaphore>,
    /// Processes that serve.
    processes: Arc<Semaphore>,
    /// Requests that are passed on, per host: one that hangs leaves the others theirs.
    passed_on: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// What was done for git clients, counted from the daemon's start.
#[derive(Debug, Default)]
pub(in crate::http) struct Counters {
    /// Requests that were answered from a mirror.
    pub(in crate::http) from_mirror: AtomicU64,
    /// Requests that were passed on to upstream.
    pub(in crate::http) passed_on: AtomicU64,
    /// Requests that got the same answer of upstream's as another one.
    pub(in crate::http) shared: AtomicU64,
    /// Answers from a mirror although upstream could not be asked whether it has moved.
    pub(in crate::http) stale: AtomicU64,
}

impl Counters {
    /// Adds one, and gives the sum.
    pub(super) fn count(counter: &AtomicU64) -> u64 {
        counter.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl GitServer {
    pub(in crate::http) fn new(registry: &Arc<Registry>) -> Self {
        let config = registry.config();
        let limits = &config.git_http;
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            registry: Arc::clone(registry),
            git: registry.git(),
            tmp: tmp_directory(&config),
            relay: Relay {
                limits: Limits {
                    total: limits.answer_timeout,
                    idle: limits.idle_timeout,
                },
                tasks: registry.tasks(),
                stop: registry.stop_token(),
            },
            client: registry.client(),
            shared: SharedAnswers::default(),
            counters: Counters::default(),
            requests: semaphore(limits.max_requests),
            processes: semaphore(limits.max_processes),
            passed_on: Mutex::default(),
        }
    }

    /// The configuration that is in force now.
    pub(super) fn config(&self) -> Arc<Config> {
        self.registry.config()
    }

    pub(super) fn body_limits(&self) -> body::Limits {
        let config = self.config();
        body::Limits {
            bytes: config.git_http.max_body_bytes,
            time: config.git_http.body_timeout,
        }
    }

    /// Room for one request more, which is not waited for.
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, GitHttpError> {
        let permit = Arc::clone(&self.requests).try_acquire_owned();
        permit.map_err(|_| GitHttpError::Busy)
    }

    /// A turn to run a process.
    pub(super) async fn process_turn(&self) -> Result<OwnedSemaphorePermit, GitHttpError> {
        self.turn(&self.processes).await
    }

    /// A turn to talk to `host`.
    pub(super) async fn upstream_turn(
        &self,
        host: &str,
    ) -> Result<OwnedSemaphorePermit, GitHttpError> {
        let turns = {
            // Hosts are those of the configuration: a request for another has been refused.
            let mut hosts = self
                .passed_on
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let limit = self.config().git_http.max_passed_on;
            let turns = hosts.entry(host.to_owned());
            Arc::clone(turns.or_insert_with(|| Arc::new(Semaphore::new(limit))))
        };
        self.turn(&turns).await
    }

    async fn turn(&self, turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, GitHttpError> {
        let turn = Arc::clone(turns).acquire_owned();
        match timeout(self.config().git_http.queue_timeout, turn).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(GitHttpError::Busy),
        }
    }
}
