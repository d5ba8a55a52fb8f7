//! Counts the requests to a bucket. A retry counts as a request of its own.

use cachewfs_base::Counter;

/// The operation that a request asks the bucket for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketOperation {
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

impl BucketOperation {
    /// All of them, in the order of the enum.
    pub const ALL: [Self; 10] = [
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

    pub fn as_str(self) -> &'static str {
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
pub enum BucketOutcome {
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

impl BucketOutcome {
    /// All of them, in the order of the enum.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::Absent,
        Self::Condition,
        Self::Refused,
        Self::Server,
        Self::Network,
        Self::Abandoned,
    ];

    pub fn as_str(self) -> &'static str {
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
pub struct BucketMetrics {
    by_operation: [OperationMetrics; BucketOperation::ALL.len()],
    /// Bytes of objects, without headers.
    pub sent_bytes: Counter,
    pub received_bytes: Counter,
}

#[derive(Debug, Default)]
struct OperationMetrics {
    by_outcome: [Counter; BucketOutcome::ALL.len()],
    retries: Counter,
}

impl BucketMetrics {
    fn of(&self, operation: BucketOperation) -> &OperationMetrics {
        // The array has one element for each operation, in the order of the enum.
        &self.by_operation[operation as usize]
    }

    /// Begins to observe a request that is about to be sent.
    pub fn begin(&self, operation: BucketOperation) -> BucketRequest<'_> {
        BucketRequest {
            cells: self.of(operation),
            outcome: Some(BucketOutcome::Abandoned),
        }
    }

    /// Counts a retry.
    pub fn note_retry(&self, operation: BucketOperation) {
        self.of(operation).retries.add(1);
    }

    /// Returns the number of retries of this operation.
    pub fn retries(&self, operation: BucketOperation) -> u64 {
        self.of(operation).retries.value()
    }

    /// Returns how many requests of this operation ended with `outcome`.
    pub fn count(&self, operation: BucketOperation, outcome: BucketOutcome) -> u64 {
        self.of(operation).by_outcome[outcome as usize].value()
    }
}

/// A request in flight. If it is dropped before [`BucketRequest::end`], it counts as abandoned.
#[derive(Debug)]
pub struct BucketRequest<'a> {
    cells: &'a OperationMetrics,
    outcome: Option<BucketOutcome>,
}

impl BucketRequest<'_> {
    /// Counts the outcome of the request, or nothing for `None`: then no request was sent.
    pub fn end(mut self, outcome: Option<BucketOutcome>) {
        self.outcome = outcome;
    }
}

impl Drop for BucketRequest<'_> {
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
        let metrics = BucketMetrics::default();

        metrics
            .begin(BucketOperation::Put)
            .end(Some(BucketOutcome::Ok));
        metrics.begin(BucketOperation::Put).end(None);
        drop(metrics.begin(BucketOperation::Put));

        let count = |outcome| metrics.count(BucketOperation::Put, outcome);
        assert_eq!(BucketOutcome::ALL.map(count), [1, 0, 0, 0, 0, 0, 1]);
    }
}
