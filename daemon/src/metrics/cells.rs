//! Gauges and histograms. They are atomics, so that counting takes no lock and no memory.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// A number of things that exist now.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicI64);

impl Gauge {
    pub(super) fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The upper bounds of the buckets of all histograms, in milliseconds. They cover everything from a
/// range in the page cache to the clone of a very large repository.
pub(super) const BOUNDS_MS: [u64; 17] = [
    1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000,
    1_800_000, 3_600_000, 7_200_000,
];

/// A distribution of durations.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// The observations up to each bound and above the bound before it. Observations above the last
    /// bound are only in `count`.
    buckets: [AtomicU64; BOUNDS_MS.len()],
    count: AtomicU64,
    sum_micros: AtomicU64,
}

/// The values of a histogram at one time.
#[derive(Debug)]
pub(super) struct HistogramValues {
    /// The observations up to each bound, including those up to lower bounds.
    pub(super) cumulative: Vec<u64>,
    pub(super) count: u64,
    pub(super) sum_seconds: f64,
}

impl Histogram {
    pub(super) fn observe(&self, took: Duration) {
        let at = BOUNDS_MS.partition_point(|&bound| Duration::from_millis(bound) < took);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> HistogramValues {
        let mut sum = 0;
        let cumulative = self.buckets.iter().map(|bucket| {
            sum += bucket.load(Ordering::Relaxed);
            sum
        });
        let cumulative: Vec<u64> = cumulative.collect();
        // An observation may come between these loads. Prometheus expects that the count is never
        // less than the sum of the buckets.
        let count = self.count.load(Ordering::Relaxed).max(sum);
        HistogramValues {
            cumulative,
            count,
            sum_seconds: self.sum_micros.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_the_buckets_below_them() {
        let histogram = Histogram::default();

        for ms in [0, 1, 2, 3, 4, 7_200_000, 7_200_001] {
            histogram.observe(Duration::from_millis(ms));
        }

        let observed = histogram.read();
        assert_eq!(observed.cumulative[..3], [2, 4, 5]);
        assert_eq!(observed.cumulative[16], 6);
        assert_eq!(observed.count, 7);
        assert!((observed.sum_seconds - 14_400.011).abs() < 1e-6);
    }
}
