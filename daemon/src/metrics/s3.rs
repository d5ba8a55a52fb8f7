//! The requests to a bucket: each that is sent, also those that are sent again.

use super::cells::Counter;
use super::names;
use super::text::Page;

/// What a request to a bucket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum S3Operation {
    /// A whole object.
    Get,
    GetRange,
    Head,
    /// A page of a listing.
    List,
    Put,
    /// Begins an upload in parts.
    Begin,
    Part,
    /// Makes an object of the parts.
    Complete,
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

/// How a request to a bucket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum S3Outcome {
    Ok,
    /// There is no such object.
    Absent,
    /// It is not in the state that was expected: who creates what is there is told so.
    Condition,
    /// Any other answer that trying again doesn't change.
    Refused,
    /// The service failed, or wants fewer requests.
    Server,
    /// There was no answer, or not all of it.
    Network,
    /// Nobody waited for the answer any more.
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

/// What is counted of all requests to a bucket.
#[derive(Debug, Default)]
pub(crate) struct S3Metrics {
    by_operation: [OfOperation; S3Operation::ALL.len()],
    /// Bytes of objects.
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
}

#[derive(Debug, Default)]
struct OfOperation {
    by_outcome: [Counter; S3Outcome::ALL.len()],
    retries: Counter,
}

impl S3Metrics {
    fn of(&self, operation: S3Operation) -> &OfOperation {
        // An operation is its own place: the array has one for each.
        &self.by_operation[operation as usize]
    }

    /// A request is about to be sent.
    pub(crate) fn begin(&self, operation: S3Operation) -> S3Request<'_> {
        S3Request {
            of: self.of(operation),
            outcome: Some(S3Outcome::Abandoned),
        }
    }

    /// One is about to be sent again.
    pub(crate) fn note_retry(&self, operation: S3Operation) {
        self.of(operation).retries.add(1);
    }

    pub(crate) fn render(&self, page: &mut Page) {
        let operations = || S3Operation::ALL.into_iter().zip(&self.by_operation);
        let mut samples = page.metric(&names::S3_REQUESTS);
        for (operation, of) in operations() {
            for (outcome, counter) in S3Outcome::ALL.into_iter().zip(&of.by_outcome) {
                if counter.value() > 0 {
                    samples.push(&[operation.as_str(), outcome.as_str()], counter.value());
                }
            }
        }
        let mut samples = page.metric(&names::S3_RETRIES);
        for (operation, of) in operations() {
            samples.push(&[operation.as_str()], of.retries.value());
        }
        let mut samples = page.metric(&names::S3_BYTES);
        samples.push(&["up"], self.sent_bytes.value());
        samples.push(&["down"], self.received_bytes.value());
    }

    /// How many requests ended so.
    #[cfg(test)]
    pub(crate) fn count(&self, operation: S3Operation, outcome: S3Outcome) -> u64 {
        self.of(operation).by_outcome[outcome as usize].value()
    }
}

/// A request that is under way; dropped before its end, it was abandoned.
#[derive(Debug)]
pub(crate) struct S3Request<'a> {
    of: &'a OfOperation,
    outcome: Option<S3Outcome>,
}

impl S3Request<'_> {
    /// Counts how it ended; `None` if nothing was sent.
    pub(crate) fn end(mut self, outcome: Option<S3Outcome>) {
        self.outcome = outcome;
    }
}

impl Drop for S3Request<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome {
            self.of.by_outcome[outcome as usize].add(1);
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
