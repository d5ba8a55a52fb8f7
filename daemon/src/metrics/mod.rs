//! What the daemon counts, for Prometheus: `GET /metrics`.
//!
//! ```text
//! names     every metric, with unit and meaning; docs/operations/metrics.md has the same table
//! cells     counters, gauges and histograms: atomics, so that counting takes no lock
//! text      the exposition format
//! requests  jobs  publishes  leases  s3   what is counted where
//! ```
//!
//! No crate does this: a hundred lines are less than the twenty crates that the usual one brings, which
//! also keeps each observation of a histogram in memory until somebody asks.

mod cells;
mod jobs;
mod leases;
pub(crate) mod names;
mod publishes;
mod requests;
mod s3;
mod text;

pub(crate) use cells::Counter;
pub(crate) use jobs::{FailureKind, JobClass, JobEnd, JobMetrics, RunningJob, WaitingJob};
pub(crate) use leases::{LeaseEvent, LeaseMetrics};
pub(crate) use publishes::{Phase, PhaseTimer, PublishMetrics};
pub(crate) use requests::{Answered, ObservedRequest, RequestMetrics};
pub(crate) use s3::{S3Metrics, S3Operation, S3Outcome};
pub(crate) use text::Page;

/// All that is counted where it happens; what can be looked at when somebody asks is not in here.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) requests: RequestMetrics,
    pub(crate) jobs: JobMetrics,
    pub(crate) publishes: PublishMetrics,
    pub(crate) leases: LeaseMetrics,
}

impl Metrics {
    pub(crate) fn render(&self, page: &mut Page) {
        self.requests.render(page);
        self.jobs.render(page);
        self.publishes.render(page);
        self.leases.render(page);
    }
}
