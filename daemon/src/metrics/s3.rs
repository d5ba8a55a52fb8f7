//! Metrics of the requests to a bucket. A retry counts as a request of its own.

use super::cells::Counter;
use super::names;
use super::text::MetricsPage;

/// The operation that a request asks the bucket for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum S3Operation {
    /// Reads a whole object.
    Get,
    GetRange,
    Head,
    /// Reads one page of a listing.
    List,
    Put,
    /// Begins a multipart upload.
    Begin,
    /// Uploads one part.
    Part,
    /// Ends a multipart upload: the parts become an object.
    Complete,
    /// Gives a multipart upload up.
    Abort,
    Delete,
}

impl S3Operation {
    const ALL: [Self; 10] = [
        Self::Get,
        Self::GetRange,
        Self::Head,
        Self::List,
        Self::Put,
        Self::Begin,
        Self::Part,
        Self::Complete,
        Self::Abort,
        Self::Delete,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetRange => "get_range",
            Self::Head => "head",
            Self::List => "list",
            Self::Put => "put",
            Self::Begin => "begin",
            Self::Part => "part",
            Self::Complete => "complete",
            Self::Abort => "abort",
            Self::Delete => "delete",
        }
    }
}

/// The outcome of a request to a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum S3Outcome {
    Ok,
    /// The bucket has no such object.
    Absent,
    /// The precondition failed: an object that was to be created exists, or an object has changed.
    Condition,
    /// The bucket refused the request or the credentials. A retry wouldn't help.
    Refused,
    /// The bucket failed, or asked for fewer requests.
    Server,
    /// The answer didn't come, or was incomplete.
    Network,
    /// The caller no longer waited for the answer.
    Abandoned,
}

impl S3Outcome {
    const ALL: [Self; 7] = [
        Self::Ok,
        Self::Absent,
        Self::Condition,
        Self::Refused,
        Self::Server,
        Self::Network,
        Self::Abandoned,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Absent => "absent",
            Self::Condition => "condition",
            Self::Refused => "refused",
            Self::Server => "server",
            Self::Network => "network",
            Self::Abandoned => "abandoned",
        }
    }
}

/// The metrics of all requests to a bucket.
#[derive(Debug, Default)]
pub(crate) struct S3Metrics {
    by_operation: [OperationMetrics; S3Operation::ALL.len()],
    /// Bytes of objects, without headers.
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
}

#[derive(Debug, Default)]
struct OperationMetrics {
    by_outcome: [Counter; S3Outcome::ALL.len()],
    retries: Counter,
}

impl S3Metrics {
    fn of(&self, operation: S3Operation) -> &OperationMetrics {
        // The array has one element for each operation, in the order of the enum.
        &self.by_operation[operation as usize]
    }

    /// Begins to observe a request that is about to be sent.
    pub(crate) fn begin(&self, operation: S3Operation) -> S3Request<'_> {
        S3Request {
            cells: self.of(operation),
            outcome: Some(S3Outcome::Abandoned),
        }
    }

    /// Counts a retry.
    pub(crate) fn note_retry(&self, operation: S3Operation) {
        self.of(operation).retries.add(1);
    }

    pub(crate) fn render(&self, page: &mut MetricsPage) {
        let operations = || S3Operation::ALL.into_iter().zip(&self.by_operation);
        let mut samples = page.metric(&names::S3_REQUESTS);
        for (operation, cells) in operations() {
            for (outcome, counter) in S3Outcome::ALL.into_iter().zip(&cells.by_outcome) {
                if counter.value() > 0 {
                    samples.push(&[operation.as_str(), outcome.as_str()], counter.value());
                }
            }
        }
        let mut samples = page.metric(&names::S3_RETRIES);
        for (operation, cells) in operations() {
            samples.push(&[operation.as_str()], cells.retries.value());
        }
        let mut samples = page.metric(&names::S3_BYTES);
        samples.push(&["up"], self.sent_bytes.value());
        samples.push(&["down"], self.received_bytes.value());
    }

    /// Returns how many requests of this operation ended with `outcome`.
    #[cfg(test)]
    pub(crate) fn count(&self, operation: S3Operation, outcome: S3Outcome) -> u64 {
        self.of(operation).by_outcome[outcome as usize].value()
    }
}

/// A request in flight. If it is dropped before [`S3Request::end`], it counts as abandoned.
#[derive(Debug)]
pub(crate) struct S3Request<'a> {
    cells: &'a OperationMetrics,
    outcome: Option<S3Outcome>,
}

impl S3Request<'_> {
    /// Counts the outcome of the request, or nothing for `None`: then no request was sent.
    pub(crate) fn end(mut self, outcome: Option<S3Outcome>) {
        self.outcome = outcome;
    }
}

impl Drop for S3Request<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome {
            self.cells.by_outcome[outcome as usize].add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_once_however_it_ends() {
        let metrics = S3Metrics::default();

        metrics.begin(S3Operation::Put).end(Some(S3Outcome::Ok));
        metrics.begin(S3Operation::Put).end(None);
        drop(metrics.begin(S3Operation::Put));

        let count = |outcome| metrics.count(S3Operation::Put, outcome);
        assert_eq!(S3Outcome::ALL.map(count), [1, 0, 0, 0, 0, 0, 1]);
    }
}
