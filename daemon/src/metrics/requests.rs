//! Metrics of HTTP requests, by the class of their route.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cachewfs_base::Counter;

use super::cells::{Gauge, Histogram};
use super::text::MetricsPage;
use super::{Metrics, names};

/// The class of a request's route, which is a label of metrics. It doesn't contain the repository:
/// there are too many for a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteClass {
    /// Archives, by their stable and their immutable URLs.
    Archive,
    /// Bundles, `ensure-refs` and `refresh`.
    Snapshot,
    /// Fetches and clones of git clients.
    Git,
    /// Everything else below a repository: pushes, LFS.
    Passed,
    /// The JSON interface.
    Api,
    /// Health, metrics, the status page.
    Operations,
    /// Anything else.
    Other,
}

impl RouteClass {
    const ALL: [Self; 7] = [
        Self::Archive,
        Self::Snapshot,
        Self::Git,
        Self::Passed,
        Self::Api,
        Self::Operations,
        Self::Other,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::Snapshot => "snapshot",
            Self::Git => "git",
            Self::Passed => "passed",
            Self::Api => "api",
            Self::Operations => "operations",
            Self::Other => "other",
        }
    }
}

/// The statuses that an answer can have. Upstream chooses the status of a passed-on answer.
const STATUSES: RangeInclusive<u16> = 100..=999;

/// The metrics of all requests, by class.
#[derive(Debug, Default)]
pub(crate) struct RequestMetrics([RouteMetrics; RouteClass::ALL.len()]);

#[derive(Debug, Default)]
struct RouteMetrics {
    by_status: StatusCounters,
    bytes: Counter,
    broken: Counter,
    first_byte: Histogram,
    under_way: Gauge,
}

/// One counter for each of [`STATUSES`].
#[derive(Debug)]
struct StatusCounters(Vec<Counter>);

impl Default for StatusCounters {
    fn default() -> Self {
        Self(STATUSES.map(|_| Counter::default()).collect())
    }
}

/// The sum of all answers to requests of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) class: &'static str,
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
}

impl RequestMetrics {
    /// Returns the sums of all answers, by class.
    pub(crate) fn answered(&self) -> Vec<Answered> {
        let answered = |(class, cells): (&'static str, &RouteMetrics)| Answered {
            class,
            requests: cells.by_status.0.iter().map(Counter::value).sum(),
            bytes: cells.bytes.value(),
        };
        self.classes().map(answered).collect()
    }

    fn of(&self, class: RouteClass) -> &RouteMetrics {
        // The array has one element for each class, in the order of the enum.
        &self.0[class as usize]
    }

    fn classes(&self) -> impl Iterator<Item = (&'static str, &RouteMetrics)> {
        RouteClass::ALL
            .into_iter()
            .map(|class| (class.as_str(), self.of(class)))
    }

    pub(super) fn render(&self, page: &mut MetricsPage) {
        let mut samples = page.metric(&names::HTTP_REQUESTS);
        for (class, cells) in self.classes() {
            for (status, counter) in STATUSES.zip(&cells.by_status.0) {
                if counter.value() > 0 {
                    samples.push(&[class, &status.to_string()], counter.value());
                }
            }
        }
        let mut samples = page.metric(&names::HTTP_RESPONSE_BYTES);
        for (class, cells) in self.classes() {
            samples.push(&[class], cells.bytes.value());
        }
        let mut samples = page.metric(&names::HTTP_BROKEN);
        for (class, cells) in self.classes() {
            samples.push(&[class], cells.broken.value());
        }
        let mut samples = page.metric(&names::HTTP_FIRST_BYTE);
        for (class, cells) in self.classes() {
            samples.push_histogram(&[class], &cells.first_byte);
        }
        let mut samples = page.metric(&names::HTTP_UNDER_WAY);
        for (class, cells) in self.classes() {
            samples.push(&[class], cells.under_way.value());
        }
    }
}

/// A request, from its head to the end of its answer. If it is dropped before
/// [`ObservedRequest::finish`], the answer counts as broken.
#[derive(Debug)]
pub(crate) struct ObservedRequest {
    metrics: Arc<Metrics>,
    class: RouteClass,
    began: Instant,
    first_byte: Option<Duration>,
    sent_bytes: u64,
    is_whole: bool,
}

impl ObservedRequest {
    pub(crate) fn begin(metrics: Arc<Metrics>, class: RouteClass) -> Self {
        metrics.requests.of(class).under_way.up();
        Self {
            metrics,
            class,
            began: Instant::now(),
            first_byte: None,
            sent_bytes: 0,
            is_whole: false,
        }
    }

    fn class_metrics(&self) -> &RouteMetrics {
        self.metrics.requests.of(self.class)
    }

    /// Notes the status of the answer.
    pub(crate) fn status(&self, status: u16) {
        let at = usize::from(status.saturating_sub(*STATUSES.start()));
        if let Some(counter) = self.class_metrics().by_status.0.get(at) {
            counter.add(1);
        }
    }

    /// Notes that `bytes` of the body go to the client.
    pub(crate) fn sending(&mut self, bytes: u64) {
        if self.first_byte.is_none() && bytes > 0 {
            let took = self.began.elapsed();
            self.first_byte = Some(took);
            self.class_metrics().first_byte.observe(took);
        }
        self.sent_bytes += bytes;
        self.class_metrics().bytes.add(bytes);
    }

    /// Notes that the whole body was sent.
    pub(crate) fn finish(&mut self) {
        self.is_whole = true;
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    pub(crate) fn took(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Drop for ObservedRequest {
    fn drop(&mut self) {
        let cells = self.class_metrics();
        cells.under_way.down();
        if !self.is_whole {
            cells.broken.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_is_counted_by_itself() {
        let metrics = Arc::new(Metrics::default());
        let request = ObservedRequest::begin(Arc::clone(&metrics), RouteClass::Passed);
        for status in [100, 404, 404, 999] {
            request.status(status);
        }

        let mut page = MetricsPage::default();
        metrics.requests.render(&mut page);

        let page = page.finish();
        for (status, count) in [(100, 1), (404, 2), (999, 1)] {
            let sample = format!("{{route=\"passed\",status=\"{status}\"}} {count}\n");
            assert!(page.contains(&sample), "{page}");
        }
    }

    #[test]
    fn an_answer_that_is_dropped_is_broken() {
        let metrics = Arc::new(Metrics::default());

        let mut whole = ObservedRequest::begin(Arc::clone(&metrics), RouteClass::Operations);
        whole.finish();
        drop(whole);
        drop(ObservedRequest::begin(
            Arc::clone(&metrics),
            RouteClass::Operations,
        ));

        let cells = metrics.requests.of(RouteClass::Operations);
        assert_eq!((cells.broken.value(), cells.under_way.value()), (1, 0));
    }
}
