//! Prints the metrics of the requests to a bucket, which the store counts.

use cachewfs_store::{BucketMetrics, BucketOperation, BucketOutcome};

use super::names;
use super::text::MetricsPage;

/// Prints the metrics of all requests to the bucket.
pub(crate) fn render_bucket(bucket: &BucketMetrics, page: &mut MetricsPage) {
    let mut samples = page.metric(&names::S3_REQUESTS);
    for operation in BucketOperation::ALL {
        for outcome in BucketOutcome::ALL {
            let count = bucket.count(operation, outcome);
            if count > 0 {
                samples.push(&[operation.as_str(), outcome.as_str()], count);
            }
        }
    }
    let mut samples = page.metric(&names::S3_RETRIES);
    for operation in BucketOperation::ALL {
        samples.push(&[operation.as_str()], bucket.retries(operation));
    }
    let mut samples = page.metric(&names::S3_BYTES);
    samples.push(&["up"], bucket.sent_bytes.value());
    samples.push(&["down"], bucket.received_bytes.value());
}
