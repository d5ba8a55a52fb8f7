//! [`OpenBucket`]: how a program opens the bucket of `[store.s3]`. This crate works on any bucket
//! and contains no client for one.

use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{NoticePeriod, S3Config, Tier};

/// The reason why a bucket can't be used.
pub type BucketProblem = Box<dyn Error + Send + Sync>;

/// Opens buckets.
pub trait OpenBucket: Debug + Send + Sync {
    /// Checks the files that `config` names, without a request.
    ///
    /// Fails if they can be used on no machine. Returns a problem that may not exist on the
    /// machine, or for the user, that the daemon will run on.
    fn check(&self, config: &S3Config) -> Result<Option<BucketProblem>, BucketProblem>;

    /// Opens the bucket in the runtime of the caller.
    fn open<'a>(
        &'a self,
        config: &'a S3Config,
        options: BucketOptions,
    ) -> BoxFuture<'a, Result<Arc<dyn Tier>, BucketProblem>>;
}

/// How a bucket is opened.
#[derive(Clone, Debug)]
pub struct BucketOptions {
    /// The notice period of the store. It limits the time of each write.
    pub notice: NoticePeriod,
    /// Ends all requests.
    pub stop: CancellationToken,
    /// Whether to go on in an outage: then a task in this tracker tries the bucket until it can be
    /// used. Without a tracker, an outage is a failure.
    pub outlast_outage: Option<TaskTracker>,
}
