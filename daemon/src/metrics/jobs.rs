//! Clones, updates, publishes and other jobs: how many wait and run, how long they take, why they fail.

use std::sync::Arc;
use std::time::Instant;

use cachewfs_format::RepoName;
use tracing::Span;

use super::cells::{Counter, Gauge, Histogram};
use super::text::Page;
use super::{Metrics, names};
use crate::traces::{self, Cause};

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobClass {
    /// The first clone of a mirror, with the update that ends it.
    Clone,
    /// An update of a mirror.
    Update,
    /// A publish.
    Publish,
    /// Maintenance of a mirror.
    Maintain,
    /// Making an archive of LFS objects.
    Lfs,
}

impl JobClass {
    const ALL: [Self; 5] = [
        Self::Clone,
        Self::Update,
        Self::Publish,
        Self::Maintain,
        Self::Lfs,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Update => "update",
            Self::Publish => "publish",
            Self::Maintain => "maintain",
            Self::Lfs => "lfs",
        }
    }
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Upstream has no such repository, or doesn't show it.
    NotFound,
    /// Upstream can't be reached, or fails.
    Upstream,
    /// There is nothing to publish: no commit, or HEAD names no branch.
    Nothing,
    /// git failed on the mirror.
    Git,
    /// The disk failed, or is full.
    Io,
    /// The store failed.
    Store,
    /// Anything else: a bug, most likely.
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
    /// There was nothing to do.
    Unchanged,
    Failed(FailureKind),
}

/// What is counted of all jobs.
#[derive(Debug, Default)]
pub(crate) struct JobMetrics([OfClass; JobClass::ALL.len()]);

#[derive(Debug, Default)]
struct OfClass {
    waiting: Gauge,
    running: Gauge,
    done: Histogram,
    unchanged: Histogram,
    failed: Histogram,
    failures: [Counter; FailureKind::ALL.len()],
}

impl JobMetrics {
    fn of(&self, class: JobClass) -> &OfClass {
        // A class is its own place: the array has one for each.
        &self.0[class as usize]
    }

    fn classes(&self) -> impl Iterator<Item = (&'static str, &OfClass)> {
        JobClass::ALL
            .into_iter()
            .map(|class| (class.as_str(), self.of(class)))
    }

    /// How many wait, and how many run, of each class.
    pub(crate) fn counts(&self) -> Vec<(JobClass, i64, i64)> {
        let counts = |class| {
            let of = self.of(class);
            (class, of.waiting.value(), of.running.value())
        };
        JobClass::ALL.map(counts).to_vec()
    }

    pub(super) fn render(&self, page: &mut Page) {
        let mut samples = page.metric(&names::JOBS_WAITING);
        for (class, of) in self.classes() {
            samples.push(&[class], of.waiting.value());
        }
        let mut samples = page.metric(&names::JOBS_RUNNING);
        for (class, of) in self.classes() {
            samples.push(&[class], of.running.value());
        }
        let mut samples = page.metric(&names::JOB_DURATION);
        for (class, of) in self.classes() {
            for (end, histogram) in [
                ("done", &of.done),
                ("unchanged", &of.unchanged),
                ("failed", &of.failed),
            ] {
                samples.push_histogram(&[class, end], histogram);
            }
        }
        let mut samples = page.metric(&names::JOB_FAILURES);
        for (class, of) in self.classes() {
            for (kind, counter) in FailureKind::ALL.into_iter().zip(&of.failures) {
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

    /// Its turn has come; the job is one of `repo`, on behalf of whom `cause` says.
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

/// A job that runs; one that is dropped without an end was given up, because the daemon stops.
#[derive(Debug)]
pub(crate) struct RunningJob {
    metrics: Arc<Metrics>,
    class: JobClass,
    began: Instant,
    span: Span,
}

impl RunningJob {
    /// What the job does belongs into this span.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    pub(crate) fn end(self, end: JobEnd) {
        let of = self.metrics.jobs.of(self.class);
        let (histogram, outcome, failure) = match end {
            JobEnd::Done => (&of.done, "done", None),
            JobEnd::Unchanged => (&of.unchanged, "unchanged", None),
            JobEnd::Failed(kind) => {
                of.failures[kind as usize].add(1);
                (&of.failed, "failed", Some(kind.as_str()))
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
