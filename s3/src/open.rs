//! [`S3`]: opens buckets for the store.

use std::time::Duration;

use cachewfs_base::chain;
use cachewfs_store::{BucketOptions, BucketProblem, BucketTier, OpenBucket, S3Config};
use futures_util::future::BoxFuture;
use tracing::warn;

use super::files::{certificates, check_credentials};
use super::{S3Error, S3Tier};

/// How long a start waits for the bucket before the daemon goes on without it.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// Opens buckets of S3.
#[derive(Clone, Copy, Debug, Default)]
pub struct S3;

impl OpenBucket for S3 {
    fn check(&self, config: &S3Config) -> Result<Option<BucketProblem>, BucketProblem> {
        certificates(config)?;
        Ok(check_credentials(config).err().map(Into::into))
    }

    fn open<'a>(
        &'a self,
        config: &'a S3Config,
        options: BucketOptions,
    ) -> BoxFuture<'a, Result<BucketTier, BucketProblem>> {
        Box::pin(async move { Ok(open(config, options).await?) })
    }
}

async fn open(config: &S3Config, options: BucketOptions) -> Result<BucketTier, S3Error> {
    let BucketOptions {
        notice,
        stop,
        outlast_outage,
    } = options;
    let bucket = S3Tier::open(config, notice, stop.clone()).await?;
    let Some(tasks) = outlast_outage else {
        bucket.probe().await?;
        return Ok(bucket.into());
    };
    let probed = tokio::time::timeout(PROBE_LIMIT, bucket.probe()).await;
    // A lasting error needs a person, so the start fails. In an outage the daemon serves its local
    // copies until the bucket answers.
    match probed.unwrap_or(Err(S3Error::TimedOut)) {
        Ok(()) => {}
        Err(error) if error.is_lasting() => return Err(error),
        Err(error) => {
            let (bucket, error) = (config.place(), chain(&error));
            warn!(
                bucket,
                error, "The bucket can't be used yet: the daemon serves the local copies"
            );
        }
    }
    if !bucket.is_probed() {
        tasks.spawn(bucket.clone().probe_until_usable(stop));
    }
    Ok(bucket.into())
}
