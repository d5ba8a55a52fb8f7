//! The state that all requests of git clients share: limits, counters, the client for upstream.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::time::timeout;

use super::body;
use super::pass_on::SharedAnswers;
use super::relay::{AnswerLimits, Relay};
use crate::base::{Permit, Shares};
use crate::config::Config;
use crate::http::body_budget::BodyBudget;
use crate::http::error::GitHttpError;
use crate::repository::{Context, Registry};

/// The budget for bodies on disk, as a multiple of the longest body that is allowed.
const MAX_LONGEST_BODIES: u64 = 16;

/// The state that all requests of git clients share.
#[derive(Debug)]
pub(in crate::http) struct GitServer {
    pub(super) context: Arc<Context>,
    pub(super) registry: Arc<Registry>,
    pub(super) tmp: PathBuf,
    pub(super) relay: Relay,
    pub(super) shared: SharedAnswers,
    pub(in crate::http) counters: GitCounters,
    /// The budget for request bodies on disk.
    pub(super) body_budget: BodyBudget,
    /// Permits for requests that are being answered, or passed on while their bodies arrive.
    requests: Shares,
    /// Permits for git processes.
    processes: Shares,
    /// Permits for requests to upstream, one set for each host: a host that hangs uses up only its
    /// own.
    passed_on: Mutex<HashMap<String, Shares>>,
}

/// Counters of requests of git clients since the daemon's start.
#[derive(Debug, Default)]
pub(in crate::http) struct GitCounters {
    /// Requests that were answered from a mirror.
    pub(in crate::http) from_mirror: AtomicU64,
    /// Requests that were passed on to upstream.
    pub(in crate::http) passed_on: AtomicU64,
    /// Requests that shared upstream's answer to an identical request.
    pub(in crate::http) shared: AtomicU64,
    /// Requests that were answered from a mirror, although the daemon could not check whether
    /// upstream has changed.
    pub(in crate::http) stale: AtomicU64,
}

impl GitCounters {
    /// Adds one, and returns the sum.
    pub(super) fn count(counter: &AtomicU64) -> u64 {
        counter.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl GitServer {
    pub(in crate::http) fn new(context: Arc<Context>, registry: Arc<Registry>) -> Self {
        let config = context.config.now();
        let limits = &config.git_http;
        let max_body_bytes = limits.max_body_bytes.saturating_mul(MAX_LONGEST_BODIES);
        Self {
            tmp: config.data_dir.tmp(),
            relay: Relay {
                limits: AnswerLimits {
                    total: limits.answer_timeout,
                    idle: limits.idle_timeout,
                },
                tasks: context.tasks.clone(),
                stop: context.stop.clone(),
            },
            context,
            registry,
            shared: SharedAnswers::default(),
            counters: GitCounters::default(),
            body_budget: BodyBudget::new(max_body_bytes, body::HEAD_LEN as u64),
            requests: Shares::leaving_a_quarter(limits.max_requests),
            processes: Shares::leaving_a_quarter(limits.max_processes),
            passed_on: Mutex::default(),
        }
    }

    /// Returns the configuration that is in force now.
    pub(super) fn config(&self) -> Arc<Config> {
        self.context.config.now()
    }

    pub(super) fn body_limits(&self) -> body::BodyLimits {
        let config = self.config();
        body::BodyLimits {
            bytes: config.git_http.max_body_bytes,
            time: config.git_http.body_timeout,
        }
    }

    /// Returns a permit for one more request of `client`, or an error at once if none is free.
    pub(super) fn admit(&self, client: IpAddr) -> Result<Permit, GitHttpError> {
        self.requests.try_take(client).ok_or(GitHttpError::Busy)
    }

    /// Waits for a permit to run a git process.
    pub(super) async fn process_permit(&self, client: IpAddr) -> Result<Permit, GitHttpError> {
        self.permit(&self.processes, client).await
    }

    /// Waits for a permit to send a request to `host`.
    pub(super) async fn upstream_permit(
        &self,
        host: &str,
        client: IpAddr,
    ) -> Result<Permit, GitHttpError> {
        let shares = {
            // The map can't grow without limit: requests for hosts that are not configured have
            // been refused.
            let mut hosts = self.passed_on.lock();
            let limit = self.config().git_http.max_passed_on;
            let shares = hosts.entry(host.to_owned());
            shares
                .or_insert_with(|| Shares::leaving_a_quarter(limit))
                .clone()
        };
        self.permit(&shares, client).await
    }

    async fn permit(&self, shares: &Shares, client: IpAddr) -> Result<Permit, GitHttpError> {
        match timeout(self.config().git_http.queue_timeout, shares.wait(client)).await {
            Ok(Some(permit)) => Ok(permit),
            Ok(None) | Err(_) => Err(GitHttpError::Busy),
        }
    }
}
