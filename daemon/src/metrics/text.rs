//! Prometheus' text format, version 0.0.4.

use std::fmt::Write as _;

use super::cells::{BOUNDS_MS, Histogram};
use super::names::Metric;

/// The answer to a scrape, while it is written.
#[derive(Debug, Default)]
pub(crate) struct MetricsPage(String);

impl MetricsPage {
    /// Begins a metric, and returns a writer for its samples.
    pub(crate) fn metric(&mut self, metric: &Metric) -> Samples<'_> {
        let (name, kind) = (metric.name, metric.kind.as_str());
        // Writing to a string can't fail.
        writeln!(self.0, "# HELP {name} {}", metric.meaning).ok();
        writeln!(self.0, "# TYPE {name} {kind}").ok();
        Samples {
            text: &mut self.0,
            name: metric.name,
            labels: metric.labels,
        }
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// A writer of the samples of one metric.
#[derive(Debug)]
pub(crate) struct Samples<'a> {
    text: &'a mut String,
    name: &'static str,
    labels: &'static [&'static str],
}

impl Samples<'_> {
    /// Writes a sample. `values` are the values of the metric's labels, in the order of the labels.
    pub(crate) fn push(&mut self, values: &[&str], value: impl std::fmt::Display) {
        self.line("", values, None, value);
    }

    pub(super) fn push_histogram(&mut self, values: &[&str], histogram: &Histogram) {
        let observed = histogram.read();
        for (bound, count) in BOUNDS_MS.iter().zip(&observed.cumulative) {
            let bound = (*bound as f64 / 1e3).to_string();
            self.line("_bucket", values, Some(&bound), count);
        }
        self.line("_bucket", values, Some("+Inf"), observed.count);
        self.line("_sum", values, None, observed.sum_seconds);
        self.line("_count", values, None, observed.count);
    }

    fn line(
        &mut self,
        suffix: &str,
        values: &[&str],
        bound: Option<&str>,
        value: impl std::fmt::Display,
    ) {
        let labels = self.labels.iter().copied().zip(values.iter().copied());
        let pairs: Vec<String> = labels
            .chain(bound.map(|bound| ("le", bound)))
            .map(|(label, value)| format!("{label}=\"{}\"", escape(value)))
            .collect();
        let labels = match pairs.as_slice() {
            [] => String::new(),
            pairs => format!("{{{}}}", pairs.join(",")),
        };
        writeln!(self.text, "{}{suffix}{labels} {value}", self.name).ok();
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::names::{HTTP_FIRST_BYTE, HTTP_REQUESTS, UPTIME};

    #[test]
    fn samples_have_their_labels_in_order() {
        let mut page = MetricsPage::default();

        page.metric(&HTTP_REQUESTS).push(&["a\"b\\\n", "200"], 3);
        page.metric(&UPTIME).push(&[], 1.5);

        let text = page.finish();
        assert!(text.contains(
            "\ncachewfsd_http_requests_total{route=\"a\\\"b\\\\\\n\",status=\"200\"} 3\n"
        ));
        assert!(
            text.contains("# TYPE cachewfsd_uptime_seconds gauge\ncachewfsd_uptime_seconds 1.5\n")
        );
    }

    #[test]
    fn a_histogram_counts_up_to_infinity() {
        let (mut page, histogram) = (MetricsPage::default(), Histogram::default());
        histogram.observe(Duration::from_millis(20));

        page.metric(&HTTP_FIRST_BYTE)
            .push_histogram(&["archive"], &histogram);

        let text = page.finish();
        for line in [
            "_bucket{route=\"archive\",le=\"0.01\"} 0",
            "_bucket{route=\"archive\",le=\"0.03\"} 1",
            "_bucket{route=\"archive\",le=\"+Inf\"} 1",
            "_sum{route=\"archive\"} 0.02",
            "_count{route=\"archive\"} 1",
        ] {
            assert!(
                text.contains(&format!("{}{line}\n", HTTP_FIRST_BYTE.name)),
                "{text}"
            );
        }
    }
}
