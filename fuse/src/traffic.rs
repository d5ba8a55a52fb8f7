//! Counts requests to the daemons, and the bytes of their answers.

use std::collections::HashMap;
use std::sync::Arc;

use cachewfs_base::Counter;
use cachewfs_format::RepoName;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::caller::{self, Process};
use crate::recent_processes::RecentProcesses;
use crate::report::TrafficReport;

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
    /// The processes that waited for requests.
    pub(crate) processes: Arc<RecentProcesses>,
    /// When a daemon or the bucket last sent anything.
    heard_at: Arc<Mutex<Option<Instant>>>,
}

/// One set of counters. They only grow.
#[derive(Debug, Default)]
struct Counters {
    requests: Counter,
    fetched_bytes: Counter,
    demand_bytes: Counter,
    demand_requests: Counter,
    retries: Counter,
    direct_bytes: Counter,
}

/// A counter of requests that have one purpose.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    purpose: Purpose,
    total: Arc<Counters>,
    repo: Option<Arc<Counters>>,
    /// The process that waits, if a reader does.
    process: Option<Process>,
    processes: Arc<RecentProcesses>,
    heard_at: Arc<Mutex<Option<Instant>>>,
}

impl Traffic {
    /// Returns a meter for requests about `repo`, or about no repository.
    pub(crate) fn meter(&self, repo: Option<&RepoName>, purpose: Purpose) -> Meter {
        let is_demand = purpose == Purpose::Demand;
        Meter {
            purpose,
            process: is_demand.then(caller::current_process).flatten(),
            processes: Arc::clone(&self.processes),
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
        self.note_process((1, 0));
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
        self.note_process((0, bytes as u64));
    }

    fn note_process(&self, counts: (u64, u64)) {
        if let Some(process) = &self.process {
            self.processes.note(process, counts);
        }
    }

    /// Counts bytes of a body that a direct read received.
    pub(crate) fn count_direct(&self, bytes: usize) {
        self.count_bytes(bytes);
        for counters in self.counters() {
            counters.direct_bytes.add(bytes as u64);
        }
    }

    /// Counts a retry of a request.
    pub(crate) fn count_retry(&self) {
        for counters in self.counters() {
            counters.retries.add(1);
        }
    }

    /// Adds `count` to the first counter that `of` selects and, if a reader waits, to the second.
    fn add(&self, count: u64, of: impl Fn(&Counters) -> (&Counter, &Counter)) {
        for counters in self.counters() {
            let (all, demand) = of(counters);
            all.add(count);
            if self.purpose == Purpose::Demand {
                demand.add(count);
            }
        }
    }

    fn counters(&self) -> impl Iterator<Item = &Counters> {
        [Some(&*self.total), self.repo.as_deref()]
            .into_iter()
            .flatten()
    }
}

impl Counters {
    fn report(&self) -> TrafficReport {
        TrafficReport {
            requests: self.requests.value(),
            fetched_bytes: self.fetched_bytes.value(),
            demand_bytes: self.demand_bytes.value(),
            demand_requests: self.demand_requests.value(),
            retries: self.retries.value(),
            direct_bytes: self.direct_bytes.value(),
        }
    }
}
