//! Counts of what was asked of the daemons.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::control::protocol::TrafficReport;

/// Why bytes are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Somebody waits for them.
    Demand,
    /// Nobody waits yet.
    Background,
}

/// Counters that only grow.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    requests: AtomicU64,
    fetched_bytes: AtomicU64,
    demand_bytes: AtomicU64,
    demand_requests: AtomicU64,
    retries: AtomicU64,
}

impl Traffic {
    /// Counts a request.
    pub(crate) fn count_request(&self, purpose: Purpose) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if purpose == Purpose::Demand {
            self.demand_requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts bytes of a body.
    pub(crate) fn count_bytes(&self, purpose: Purpose, bytes: usize) {
        let bytes = bytes as u64;
        self.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
        if purpose == Purpose::Demand {
            self.demand_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Counts a request that is made again.
    pub(crate) fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts so far.
    pub(crate) fn report(&self) -> TrafficReport {
        TrafficReport {
            requests: self.requests.load(Ordering::Relaxed),
            fetched_bytes: self.fetched_bytes.load(Ordering::Relaxed),
            demand_bytes: self.demand_bytes.load(Ordering::Relaxed),
            demand_requests: self.demand_requests.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
        }
    }
}
