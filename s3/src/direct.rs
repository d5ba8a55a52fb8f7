//! Signs URLs with which clients read ranges of objects directly from the bucket.

use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::ResponseChecksumValidation;
use aws_sdk_s3::presigning::PresigningConfig;
use cachewfs_store::DirectUrl;

use super::{Bucket, S3Config};

/// How long finding credentials may take before the daemon sends the bytes itself.
const SIGNING_LIMIT: Duration = Duration::from_secs(1);

/// Signs URLs with the daemon's own credentials.
#[derive(Debug)]
pub(super) struct Signer {
    /// Sends no requests. It has the address that clients know.
    client: Client,
    ttl: Duration,
}

impl Signer {
    /// Returns a signer, or `None` if direct reads are turned off.
    pub(super) fn new(config: &S3Config, bucket: &Bucket) -> Option<Self> {
        if !config.direct_reads {
            return None;
        }
        // Otherwise the client would have to send one more signed header.
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

    /// Returns a URL for `range` of an object. The `Range` header is signed too, so the URL is good
    /// for nothing else.
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
            Ok(signed) => Some(DirectUrl::new(signed.uri().to_owned())),
            Err(error) => {
                tracing::debug!(%error, "Can't sign a URL for a client");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Returns a URL for an object in the bucket `snapshots` of `config`, signed with the
    /// credentials of a session.
    async fn url(config: S3Config) -> String {
        let mut credentials = tempfile::NamedTempFile::new().unwrap();
        let keys = "aws_access_key_id = somebody\naws_secret_access_key = a secret\n";
        write!(
            credentials,
            "[default]\n{keys}aws_session_token = for-an-hour\n"
        )
        .unwrap();
        let config = S3Config {
            bucket: "snapshots".to_owned(),
            credentials_file: Some(credentials.path().to_owned()),
            direct_reads: true,
            ..config
        };
        let bucket = Bucket::open(&config).await.unwrap();
        let signer = Signer::new(&config, &bucket).unwrap();
        let url = signer.url(&bucket, "v1/x", 0..5).await;
        url.unwrap().secret().to_owned()
    }

    #[tokio::test]
    async fn a_bucket_is_in_the_path_or_in_the_name_of_the_host() {
        let endpoint = || Some("https://s3.example.com:9000".to_owned());
        let of_path = S3Config {
            endpoint: endpoint(),
            ..S3Config::default()
        };
        let of_host = S3Config {
            path_style: Some(false),
            ..of_path.clone()
        };
        let of_aws = S3Config {
            region: Some("eu-central-1".to_owned()),
            ..S3Config::default()
        };

        let cases = [
            (of_path, "https://s3.example.com:9000/snapshots/v1/x?"),
            (of_host, "https://snapshots.s3.example.com:9000/v1/x?"),
            (
                of_aws,
                "https://snapshots.s3.eu-central-1.amazonaws.com/v1/x?",
            ),
        ];
        for (config, begin) in cases {
            let url = url(config).await;
            assert!(url.starts_with(begin), "{url}");
            assert!(url.contains("X-Amz-Security-Token=for-an-hour"), "{url}");
        }
    }
}
