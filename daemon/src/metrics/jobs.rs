//! Metrics of jobs (clones, updates, publishes and others): how many wait and run, how long they
//! take, and why they fail.

use std::sync::Arc;
use std::time::Instant;

use cachewfs_base::Counter;
use cachewfs_format::RepoName;
use cachewfs_format::api::JobClass;
use tracing::Span;

use super::cells::{Gauge, Histogram};
use super::text::MetricsPage;
use super::{Metrics, names};
use crate::traces::{self, Cause};

/// The cause of a job's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Upstream has no such repository, or hides it from the daemon.
    NotFound,
    /// Upstream can't be reached, or fails.
    Upstream,
    /// The mirror has nothing to publish: no commit, or HEAD names no branch.
    Nothing,
    /// git failed on the mirror.
    Git,
    /// The disk failed, or is full.
    Io,
    /// The store failed.
    Store,
    /// Anything else, most likely a bug.
    Other,
    /// The daemon stops.
    Stopping,
}

impl FailureKind {
    const ALL: [Self; 8] = [
        Self::NotFound,
        Self::Upstream,
        Self::Nothing,
        Self::Git,
        Self::Io,
        Self::Store,
        Self::Other,
        Self::Stopping,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Upstream => "upstream",
            Self::Nothing => "nothing",
            Self::Git => "git",
            Self::Io => "io",
            Self::Store => "store",
            Self::Other => "other",
            Self::Stopping => "stopping",
        }
    }
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobEnd {
    Done,
    /// The job found nothing to do.
    Unchanged,
    Failed(FailureKind),
}

/// The metrics of all jobs, by class.
#[derive(Debug, Default)]
pub(crate) struct JobMetrics([JobClassMetrics; JobClass::ALL.len()]);

#[derive(Debug, Default)]
struct JobClassMetrics {
    waiting: Gauge,
    running: Gauge,
    done: Histogram,
    unchanged: Histogram,
    failed: Histogram,
    failures: [Counter; FailureKind::ALL.len()],
}

impl JobMetrics {
    fn of(&self, class: JobClass) -> &JobClassMetrics {
        // The array has one element for each class, in the order of the enum.
        &self.0[class as usize]
    }

    fn classes(&self) -> impl Iterator<Item = (&'static str, &JobClassMetrics)> {
        JobClass::ALL
            .into_iter()
            .map(|class| (class.as_str(), self.of(class)))
    }

    /// Returns how many jobs of each class wait, and how many run.
    pub(crate) fn counts(&self) -> Vec<(JobClass, i64, i64)> {
        let counts = |class| {
            let cells = self.of(class);
            (class, cells.waiting.value(), cells.running.value())
        };
        JobClass::ALL.map(counts).to_vec()
    }

    pub(super) fn render(&self, page: &mut MetricsPage) {
        let mut samples = page.metric(&names::JOBS_WAITING);
        for (class, cells) in self.classes() {
            samples.push(&[class], cells.waiting.value());
        }
        let mut samples = page.metric(&names::JOBS_RUNNING);
        for (class, cells) in self.classes() {
            samples.push(&[class], cells.running.value());
        }
        let mut samples = page.metric(&names::JOB_DURATION);
        for (class, cells) in self.classes() {
            for (end, histogram) in [
                ("done", &cells.done),
                ("unchanged", &cells.unchanged),
                ("failed", &cells.failed),
            ] {
                samples.push_histogram(&[class, end], histogram);
            }
        }
        let mut samples = page.metric(&names::JOB_FAILURES);
        for (class, cells) in self.classes() {
            for (kind, counter) in FailureKind::ALL.into_iter().zip(&cells.failures) {
                samples.push(&[class, kind.as_str()], counter.value());
            }
        }
    }
}

/// A job that waits for its turn.
#[derive(Debug)]
pub(crate) struct WaitingJob {
    metrics: Arc<Metrics>,
    class: JobClass,
    since: Instant,
}

impl WaitingJob {
    pub(crate) fn new(metrics: Arc<Metrics>, class: JobClass) -> Self {
        metrics.jobs.of(class).waiting.up();
        let since = Instant::now();
        Self {
            metrics,
            class,
            since,
        }
    }

    pub(crate) fn class(&self) -> JobClass {
        self.class
    }

    /// Ends the wait and starts the job of `repo`. Its span becomes a child of `cause`.
    pub(crate) fn start(self, repo: &RepoName, cause: &Cause) -> RunningJob {
        let (metrics, class) = (Arc::clone(&self.metrics), self.class);
        metrics.jobs.of(class).running.up();
        let began = Instant::now();
        let span = traces::job_span(class.as_str(), repo.as_str(), cause);
        traces::note_wait(&span, began - self.since);
        RunningJob {
            metrics,
            class,
            began,
            span,
        }
    }
}

impl Drop for WaitingJob {
    fn drop(&mut self) {
        self.metrics.jobs.of(self.class).waiting.down();
    }
}

/// A job that runs. If it is dropped without [`RunningJob::end`], the daemon stops and has given it
/// up.
#[derive(Debug)]
pub(crate) struct RunningJob {
    metrics: Arc<Metrics>,
    class: JobClass,
    began: Instant,
    span: Span,
}

impl RunningJob {
    /// Returns the span of the job. The spans of its steps become children of it.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Counts how the job ended.
    pub(crate) fn end(self, end: JobEnd) {
        let cells = self.metrics.jobs.of(self.class);
        let (histogram, outcome, failure) = match end {
            JobEnd::Done => (&cells.done, "done", None),
            JobEnd::Unchanged => (&cells.unchanged, "unchanged", None),
            JobEnd::Failed(kind) => {
                cells.failures[kind as usize].add(1);
                (&cells.failed, "failed", Some(kind.as_str()))
            }
        };
        traces::end_job(&self.span, outcome, failure);
        histogram.observe(self.began.elapsed());
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        self.metrics.jobs.of(self.class).running.down();
    }
}
