//! Metrics for Prometheus: `GET /metrics`.
//!
//! ```text
//! names     every metric, with unit and meaning; docs/operations/metrics.md has the same
//! cells     gauges and histograms
//! text      Prometheus' text format
//! requests  jobs  publishes  leases  s3    the metrics of each area
//! ```
//!
//! To add a metric: declare it in `names`, add its row to the table in the documentation, count it
//! in the file of its area, and print it in that file's `render`.
//!
//! No crate does this, on purpose. `metrics` with its exporter for Prometheus would add 27
//! packages, keeps each observation of a histogram in memory until a scrape, and can't drop the
//! gauge of a repository that is gone.

mod cells;
mod jobs;
mod leases;
pub(crate) mod names;
mod publishes;
mod requests;
mod s3;
mod text;

use std::sync::Arc;

pub(crate) use cachewfs_format::api::JobClass;
use cachewfs_store::LeaseMetrics;
pub(crate) use jobs::{FailureKind, JobEnd, JobMetrics, RunningJob, WaitingJob};
pub(crate) use publishes::{Phase, PhaseTimer, PublishMetrics};
pub(crate) use requests::{Answered, ObservedRequest, RequestMetrics, RouteClass};
pub(crate) use s3::render_bucket;
pub(crate) use text::MetricsPage;

/// The metrics that are counted as events happen. Values that a scrape can read from elsewhere,
/// such as the lag of mirrors, are not here.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) requests: RequestMetrics,
    pub(crate) jobs: JobMetrics,
    pub(crate) publishes: PublishMetrics,
    pub(crate) leases: Arc<LeaseMetrics>,
}

impl Metrics {
    pub(crate) fn render(&self, page: &mut MetricsPage) {
        self.requests.render(page);
        self.jobs.render(page);
        self.publishes.render(page);
        leases::render_leases(&self.leases, page);
    }
}
