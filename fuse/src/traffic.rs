//! Counts requests to the daemons, and the bytes of their answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cachewfs_format::RepoName;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::control::protocol::TrafficReport;

/// The reason for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A reader waits for the bytes.
    Demand,
    /// No reader waits for the bytes yet.
    Background,
}

/// The traffic counters of a mount: one set in total, and one for each repository.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    total: Arc<Counters>,
    repos: Mutex<HashMap<RepoName, Arc<Counters>>>,
    heard_at: Arc<HeardAt>,
}

/// When a daemon or the bucket last sent anything.
#[derive(Debug, Default)]
struct HeardAt(Mutex<Option<Instant>>);

/// One set of counters. They only grow.
#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    fetched_bytes: AtomicU64,
    demand_bytes: AtomicU64,
    demand_requests: AtomicU64,
    retries: AtomicU64,
    direct_bytes: AtomicU64,
}

/// A counter of requests that have one purpose.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    purpose: Purpose,
    total: Arc<Counters>,
    repo: Option<Arc<Counters>>,
    heard_at: Arc<HeardAt>,
}

impl Traffic {
    /// Returns a meter for requests about `repo`, or about no repository.
    pub(crate) fn meter(&self, repo: Option<&RepoName>, purpose: Purpose) -> Meter {
        Meter {
            purpose,
            total: Arc::clone(&self.total),
            repo: repo.map(|repo| self.counters_of(repo)),
            heard_at: Arc::clone(&self.heard_at),
        }
    }

    /// Returns when a daemon or the bucket last sent anything, or `None` before the first answer.
    pub(crate) fn heard_at(&self) -> Option<Instant> {
        *self.heard_at.lock()
    }

    /// Returns the counts of the whole mount so far.
    pub(crate) fn report(&self) -> TrafficReport {
        self.total.report()
    }

    /// Returns the counts of `repo` so far.
    pub(crate) fn report_of(&self, repo: &RepoName) -> TrafficReport {
        self.counters_of(repo).report()
    }

    /// Drops the counts of the repositories for which `keeps` returns false.
    pub(crate) fn retain(&self, keeps: impl Fn(&RepoName) -> bool) {
        let mut repos = self.repos.lock();
        repos.retain(|repo, _| keeps(repo));
    }

    fn counters_of(&self, repo: &RepoName) -> Arc<Counters> {
        let mut repos = self.repos.lock();
        if let Some(counters) = repos.get(repo) {
            return Arc::clone(counters);
        }
        Arc::clone(repos.entry(repo.clone()).or_default())
    }
}

impl Meter {
    /// Counts a request.
    pub(crate) fn count_request(&self) {
        self.add(1, |counters| {
            (&counters.requests, &counters.demand_requests)
        });
    }

    /// Notes that an answer begins.
    pub(crate) fn note_answer(&self) {
        *self.heard_at.lock() = Some(Instant::now());
    }

    /// Counts bytes of a body.
    pub(crate) fn count_bytes(&self, bytes: usize) {
        self.note_answer();
        self.add(bytes as u64, |counters| {
            (&counters.fetched_bytes, &counters.demand_bytes)
        });
    }

    /// Counts bytes of a body that a direct read received.
    pub(crate) fn count_direct(&self, bytes: usize) {
        self.count_bytes(bytes);
        for counters in self.counters() {
            let direct = &counters.direct_bytes;
            direct.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Counts a retry of a request.
    pub(crate) fn count_retry(&self) {
        for counters in self.counters() {
            counters.retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds `count` to the first counter that `of` selects and, if a reader waits, to the second.
    fn add(&self, count: u64, of: impl Fn(&Counters) -> (&AtomicU64, &AtomicU64)) {
        for counters in self.counters() {
            let (all, demand) = of(counters);
            all.fetch_add(count, Ordering::Relaxed);
            if self.purpose == Purpose::Demand {
                demand.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    fn counters(&self) -> impl Iterator<Item = &Counters> {
        [Some(&*self.total), self.repo.as_deref()]
            .into_iter()
            .flatten()
    }
}

impl HeardAt {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock()
    }
}

impl Counters {
    fn report(&self) -> TrafficReport {
        TrafficReport {
            requests: self.requests.load(Ordering::Relaxed),
            fetched_bytes: self.fetched_bytes.load(Ordering::Relaxed),
            demand_bytes: self.demand_bytes.load(Ordering::Relaxed),
            demand_requests: self.demand_requests.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            direct_bytes: self.direct_bytes.load(Ordering::Relaxed),
        }
    }
}
