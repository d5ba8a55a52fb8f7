//! The names and help texts of all metrics. A test compares them with the table in
//! `docs/operations/metrics.md`.

/// The type of a metric, as Prometheus defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricKind {
    /// A value that only grows, from 0 at the daemon's start.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// The number of observations up to each of several bounds.
    Histogram,
}

impl MetricKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric. Its name ends with its unit, as is usual for Prometheus.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) kind: MetricKind,
    /// The names of the labels. Each label has few values; labels with the name of a repository
    /// have at most [`MAX_REPOSITORIES`].
    pub(crate) labels: &'static [&'static str],
    pub(crate) meaning: &'static str,
}

/// At most this many repositories have samples of their own: those that lag most.
pub(crate) const MAX_REPOSITORIES: usize = 100;

macro_rules! metrics {
    ($($const:ident = $kind:ident $name:literal [$($label:literal),*] $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub(crate) const $const: Metric = Metric {
                name: $name,
                kind: MetricKind::$kind,
                labels: &[$($label),*],
                meaning: $meaning,
            };
        )*

        /// All metrics, in the order of the documentation.
        #[cfg(test)]
        const ALL: &[&Metric] = &[$(&$const),*];
    };
}

metrics! {
    HTTP_REQUESTS = Counter "cachewfsd_http_requests_total" ["route", "status"]
        "Requests that were answered, by class of route and status";
    HTTP_RESPONSE_BYTES = Counter "cachewfsd_http_response_bytes_total" ["route"]
        "Bytes of bodies that were sent";
    HTTP_BROKEN = Counter "cachewfsd_http_responses_broken_total" ["route"]
        "Answers that ended before their body was complete: the client went away, or the daemon \
         broke off";
    HTTP_FIRST_BYTE = Histogram "cachewfsd_http_first_byte_seconds" ["route"]
        "Time from a request's head to the first byte of the answer's body";
    HTTP_UNDER_WAY = Gauge "cachewfsd_http_requests_under_way" ["route"]
        "Requests in flight: not yet answered to the end";
    GIT_REQUESTS = Counter "cachewfsd_git_requests_total" ["from"]
        "Requests of git clients: answered from the mirror, passed on to upstream, sharing the \
         answer to another request, or answered from a mirror that may be stale";
    JOBS_WAITING = Gauge "cachewfsd_jobs_waiting" ["class"]
        "Clones, updates, publishes, maintenance and LFS archives that wait for their turn";
    JOBS_RUNNING = Gauge "cachewfsd_jobs_running" ["class"]
        "Clones, updates, publishes, maintenance and LFS archives that run";
    JOB_DURATION = Histogram "cachewfsd_job_duration_seconds" ["class", "end"]
        "Run time of jobs that succeeded (done), found nothing to do (unchanged), or failed";
    JOB_FAILURES = Counter "cachewfsd_job_failures_total" ["class", "kind"]
        "Jobs that failed, by cause";
    PUBLISH_PHASE = Histogram "cachewfsd_publish_phase_seconds" ["phase"]
        "Run time of the phases of publishes: pack, index, checkout, assemble, store";
    PUBLISH_BYTES = Counter "cachewfsd_publish_written_bytes_total" ["phase"]
        "Bytes that the phases of publishes wrote: pack writes packs, store writes new segments, \
         the others write segments to temporary files";
    LEASES = Counter "cachewfsd_leases_total" ["event"]
        "Leases on publishes: acquired, waited for, taken over (those acquired after the holder \
         let them expire), lost to another daemon, failed (published without a lease)";
    STORE_READS = Counter "cachewfsd_store_reads_total" ["tier"]
        "Reads of segments, by the tier of the store that answered";
    STORE_READ_BYTES = Counter "cachewfsd_store_read_bytes_total" ["tier"]
        "Bytes of segments that were read, by the tier of the store that answered";
    S3_REQUESTS = Counter "cachewfsd_s3_requests_total" ["operation", "outcome"]
        "Requests to the bucket, including retries";
    S3_RETRIES = Counter "cachewfsd_s3_retries_total" ["operation"]
        "Retries of requests to the bucket";
    S3_BYTES = Counter "cachewfsd_s3_bytes_total" ["direction"]
        "Bytes of objects that were sent to the bucket (up) and received from it (down), \
         including failed requests";
    REPOSITORIES = Gauge "cachewfsd_repositories" ["state"]
        "Repositories by the state of their mirror";
    REPOSITORIES_FAILING = Gauge "cachewfsd_repositories_failing" []
        "Repositories whose last run failed; names that upstream doesn't have are not counted";
    MIRROR_LAG_MAX = Gauge "cachewfsd_mirror_lag_max_seconds" []
        "The longest lag of all mirrors";
    MIRROR_LAG = Gauge "cachewfsd_mirror_lag_seconds" ["repo"]
        "Time since the last successful check of upstream, of the mirrors that lag most";
    DISK_USED = Gauge "cachewfsd_disk_used_bytes" ["area"]
        "Disk space that mirrors and store take, measured about every five minutes or more often";
    DISK_FREE = Gauge "cachewfsd_disk_free_bytes" []
        "Free space on the filesystem of the data directory";
    UPTIME = Gauge "cachewfsd_uptime_seconds" []
        "Time since the daemon's start";
    BUILD = Gauge "cachewfsd_build_info" ["version"]
        "Always 1; the version is in the label";
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATIONS: &str = include_str!("../../../docs/operations/metrics.md");

    fn row(metric: &Metric) -> String {
        let labels: Vec<_> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        format!(
            "| `{}` | {} | {} | {} |",
            metric.name,
            metric.kind.as_str(),
            labels.join(", "),
            metric.meaning
        )
    }

    #[test]
    fn the_table_in_the_documentation_has_each_metric_and_no_other() {
        let is_row =
            |line: &&str| line.starts_with("| `cachewfsd_") && line.matches(" | ").count() == 3;
        let documented: Vec<&str> = OPERATIONS.lines().filter(is_row).collect();
        let expected: Vec<String> = ALL.iter().copied().map(row).collect();

        assert_eq!(documented, expected);
    }

    #[test]
    fn names_end_with_their_unit() {
        for metric in ALL {
            let is_good = match metric.kind {
                MetricKind::Counter => metric.name.ends_with("_total"),
                MetricKind::Histogram => metric.name.ends_with("_seconds"),
                MetricKind::Gauge => !metric.name.ends_with("_total"),
            };
            assert!(is_good, "{}", metric.name);
        }
    }
}
