//! Metrics of the phases of publishes.

use std::time::{Duration, Instant};

use cachewfs_base::Counter;
use tracing::span::EnteredSpan;

use super::cells::Histogram;
use super::names;
use super::text::MetricsPage;
use crate::traces::step_span;

/// A phase of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Lists and packs objects.
    Pack,
    /// Writes the commit-graph and the indexes of packs.
    Index,
    /// Writes the segments of the work tree and of git's index.
    Checkout,
    /// Writes the segments of packs and of the other files of the repository.
    Assemble,
    /// Stores segments, manifest and pointer.
    Store,
}

impl Phase {
    const ALL: [Self; 5] = [
        Self::Pack,
        Self::Index,
        Self::Checkout,
        Self::Assemble,
        Self::Store,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Pack => "pack",
            Self::Index => "index",
            Self::Checkout => "checkout",
            Self::Assemble => "assemble",
            Self::Store => "store",
        }
    }
}

/// The metrics of all publishes that had something to publish.
#[derive(Debug, Default)]
pub(crate) struct PublishMetrics {
    phases: [Histogram; Phase::ALL.len()],
    written_bytes: [Counter; Phase::ALL.len()],
}

impl PublishMetrics {
    pub(super) fn render(&self, page: &mut MetricsPage) {
        let mut samples = page.metric(&names::PUBLISH_PHASE);
        for (phase, histogram) in Phase::ALL.into_iter().zip(&self.phases) {
            samples.push_histogram(&[phase.as_str()], histogram);
        }
        let mut samples = page.metric(&names::PUBLISH_BYTES);
        for (phase, counter) in Phase::ALL.into_iter().zip(&self.written_bytes) {
            samples.push(&[phase.as_str()], counter.value());
        }
    }
}

/// A stopwatch for the phases of one publish. When dropped, also after a failure, it counts the sum
/// for each phase.
#[derive(Debug)]
pub(crate) struct PhaseTimer<'a> {
    metrics: &'a PublishMetrics,
    phase: Phase,
    since: Instant,
    /// The span of the present phase, entered, so that spans begun meanwhile become its children.
    span: Option<EnteredSpan>,
    took: [Option<Duration>; Phase::ALL.len()],
}

impl<'a> PhaseTimer<'a> {
    pub(crate) fn start(metrics: &'a PublishMetrics, phase: Phase) -> Self {
        let (since, took) = (Instant::now(), [None; Phase::ALL.len()]);
        Self {
            metrics,
            phase,
            since,
            span: Some(step_span(phase.as_str()).entered()),
            took,
        }
    }

    /// Counts the bytes that the present phase wrote.
    pub(crate) fn wrote(&self, bytes: u64) {
        self.metrics.written_bytes[self.phase as usize].add(bytes);
    }

    /// Ends the present phase and begins `phase`, which may be one that was ended before.
    pub(crate) fn enter(&mut self, phase: Phase) {
        self.end();
        (self.phase, self.since) = (phase, Instant::now());
        self.span = Some(step_span(phase.as_str()).entered());
    }

    fn end(&mut self) {
        // The old span must be left before the next one is created: otherwise the next one would
        // become its child.
        self.span = None;
        let sum = &mut self.took[self.phase as usize];
        *sum = Some(sum.unwrap_or_default() + self.since.elapsed());
    }
}

impl Drop for PhaseTimer<'_> {
    fn drop(&mut self) {
        self.end();
        for (histogram, took) in self.metrics.phases.iter().zip(self.took) {
            if let Some(took) = took {
                histogram.observe(took);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_that_comes_back_is_counted_once() {
        let metrics = PublishMetrics::default();

        let mut timer = PhaseTimer::start(&metrics, Phase::Assemble);
        timer.enter(Phase::Checkout);
        timer.enter(Phase::Assemble);
        drop(timer);

        let counts = metrics.phases.map(|phase| phase.read().count);
        assert_eq!(counts, [0, 0, 1, 1, 0]);
    }
}
