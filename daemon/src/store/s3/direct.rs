//! URLs with which clients read ranges of objects from the bucket by themselves.

use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::ResponseChecksumValidation;
use aws_sdk_s3::presigning::PresigningConfig;

use super::{Bucket, S3Config};
use crate::store::tier::DirectUrl;

/// How long finding credentials may take: then the daemon reads for the client.
const SIGNING_LIMIT: Duration = Duration::from_secs(1);

/// Signs what clients may read, with the daemon's own credentials.
#[derive(Debug)]
pub(super) struct Signer {
    /// Asks nobody: it has the address that clients know.
    client: Client,
    ttl: Duration,
}

impl Signer {
    /// `None` if clients are not to read by themselves.
    pub(super) fn new(config: &S3Config, bucket: &Bucket) -> Option<Self> {
        if !config.direct_reads {
            return None;
        }
        // Otherwise there would be a header more to send.
        let mut builder = bucket
            .client
            .config()
            .to_builder()
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(endpoint) = &config.public_endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        Some(Self {
            client: Client::from_conf(builder.build()),
            ttl: config.direct_reads_ttl,
        })
    }

    /// A URL for `range` of an object and nothing else: the `Range` header is signed, too.
    pub(super) async fn url(
        &self,
        bucket: &Bucket,
        name: &str,
        range: Range<u64>,
    ) -> Option<DirectUrl> {
        let last = range.end.checked_sub(1)?;
        let request = self.client.get_object().bucket(&bucket.name);
        let request = request
            .key(bucket.key(name))
            .range(format!("bytes={}-{last}", range.start));
        let signing = request.presigned(PresigningConfig::expires_in(self.ttl).ok()?);
        let signed = tokio::time::timeout(SIGNING_LIMIT, signing).await.ok()?;
        match signed {
            Ok(signed) => Some(DirectUrl(signed.uri().to_owned())),
            Err(error) => {
                tracing::debug!(%error, "A URL for a client can't be signed");
                None
            }
        }
    }
}
