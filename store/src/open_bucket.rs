//! [`OpenBucket`]: how a program opens the bucket of `[store.s3]`. This crate works on any bucket
//! and contains no client for one.

use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{BucketMetrics, DirectUrl, Extent, NoticePeriod, Objects, S3Config};

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
    ) -> BoxFuture<'a, Result<BucketTier, BucketProblem>>;
}

/// A bucket that is open.
#[derive(Clone, Debug)]
pub struct BucketTier {
    pub objects: Arc<dyn Objects>,
    pub metrics: Arc<BucketMetrics>,
    /// Signs URLs for direct reads, if they are configured.
    pub signer: Option<Arc<dyn SignUrl>>,
}

impl BucketTier {
    /// Returns a bucket that counts no requests and signs no URLs.
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self {
            objects,
            metrics: Arc::default(),
            signer: None,
        }
    }
}

/// Signs URLs with which clients read the bucket directly.
pub trait SignUrl: Debug + Send + Sync {
    /// Returns a URL from which a client may read the extent, unless its segment is damaged or
    /// signing takes too long.
    fn sign<'a>(&'a self, wanted: &'a Extent) -> BoxFuture<'a, Option<DirectUrl>>;
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
