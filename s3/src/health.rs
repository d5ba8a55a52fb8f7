//! [`Health`]: whether a bucket answers. During an outage requests fail at once, and only now and
//! then one is sent.

use std::time::{Duration, Instant};

use cachewfs_base::{Backoff, chain};
use cachewfs_store::BucketOperation;
use parking_lot::Mutex;

use super::S3Error;

/// How often each request is tried.
const TRIES: u32 = 4;
/// How long no request is sent after one that failed in an outage.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(500),
    longest: Duration::from_secs(5),
};

/// The state of a bucket, as far as this daemon knows it.
#[derive(Debug, Default)]
pub(super) struct Health {
    outage: Mutex<Option<Outage>>,
    /// The last lasting error of each refused operation. A service may refuse some operations and
    /// allow others.
    refused: Mutex<Vec<(BucketOperation, String)>>,
}

#[derive(Debug)]
struct Outage {
    /// No request is sent before this moment.
    until: Instant,
    /// How many requests failed, not counting those that were in flight together.
    failures: u32,
}

impl Outage {
    fn backoff(&self) -> Duration {
        BACKOFF.doubled(self.failures)
    }
}

impl Health {
    /// Returns how often a request may be tried. During an outage one request at a time may be
    /// tried, once. Its caller must record the outcome.
    pub(super) fn tries(&self) -> u32 {
        let mut outage = self.outage.lock();
        match &mut *outage {
            None => TRIES,
            Some(outage) if outage.until > Instant::now() => 0,
            Some(outage) => {
                // Others must wait for another backoff, or until this request has succeeded.
                outage.until = Instant::now() + outage.backoff();
                1
            }
        }
    }

    /// Records the outcome of a request that found no outage. Logs a lasting error once.
    pub(super) fn note_outcome(&self, operation: BucketOperation, error: Option<&S3Error>) {
        if error.is_none_or(S3Error::is_answer) && self.outage.lock().take().is_some() {
            tracing::info!("The bucket of the store answers again");
        }
        self.note_refusal(operation, error.filter(|error| error.is_lasting()));
    }

    /// Records whether the service refuses an operation.
    pub(super) fn note_refusal(&self, operation: BucketOperation, error: Option<&S3Error>) {
        let mut refused = self.refused.lock();
        let last = refused.iter().position(|(of, _)| *of == operation);
        let operation_name = operation.as_str();
        match (error.map(|error| chain(error)), last) {
            (None, None) => {}
            (None, Some(last)) => {
                refused.swap_remove(last);
                tracing::info!(
                    operation = operation_name,
                    "The bucket accepts requests again"
                );
            }
            (Some(error), last) => {
                let said = last.map(|last| refused.swap_remove(last).1);
                if said.as_ref() != Some(&error) {
                    tracing::error!(
                        operation = operation_name,
                        error,
                        "The bucket of the store can't be used"
                    );
                }
                refused.push((operation, error));
            }
        }
    }

    /// Records a request that failed with all its tries.
    pub(super) fn note_outage(&self) {
        let mut outage = self.outage.lock();
        let failures = match &*outage {
            None => {
                tracing::warn!("The bucket of the store does not answer");
                1
            }
            // Requests that were in flight when the outage was found fail too, and must not extend
            // the backoff.
            Some(outage) if outage.until > Instant::now() + outage.backoff() / 2 => return,
            Some(outage) => outage.failures.saturating_add(1),
        };
        let until = Instant::now() + BACKOFF.doubled(failures);
        *outage = Some(Outage { until, failures });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_an_outage_one_request_at_a_time_is_tried() {
        let health = Health::default();
        assert_eq!([health.tries(), health.tries()], [TRIES, TRIES]);

        health.note_outage();
        assert_eq!(health.tries(), 0);
        health.outage.lock().as_mut().unwrap().until = Instant::now();
        assert_eq!([health.tries(), health.tries()], [1, 0]);

        // Missing credentials are no answer of the bucket.
        let error = S3Error::NoCredentials("none".into());
        health.note_outcome(BucketOperation::Get, Some(&error));
        health.outage.lock().as_mut().unwrap().until = Instant::now();
        assert_eq!([health.tries(), health.tries()], [1, 0]);

        health.note_outcome(BucketOperation::Get, Some(&S3Error::NoObject));
        assert_eq!([health.tries(), health.tries()], [TRIES, TRIES]);
    }
}
