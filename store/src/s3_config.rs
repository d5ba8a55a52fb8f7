//! The `[store.s3]` section of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use cachewfs_base::duration;
use serde::{Deserialize, Serialize};

/// The `[store.s3]` section: the bucket of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3Config {
    /// The bucket. It must exist. Required.
    pub bucket: String,
    /// The prefix of all names in the bucket: `<prefix>/v1/…`. Default: none.
    pub prefix: String,
    /// The URL of the service, if it isn't AWS.
    pub endpoint: Option<String>,
    /// The region of the bucket. Default: as in AWS's own tools, or `us-east-1` with an `endpoint`.
    pub region: Option<String>,
    /// Whether URLs have the bucket in their path instead of the host name. Default: only with an
    /// `endpoint`.
    pub path_style: Option<bool>,
    /// A file with certificates (PEM) of authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// A file with credentials in the format of AWS's tools. Default: environment, `~/.aws`, web
    /// identity, container, instance.
    pub credentials_file: Option<PathBuf>,
    /// The profile in that file, or in `~/.aws`. Default `default`.
    pub profile: Option<String>,
    /// How long the service may take to answer, and how long a response may pause. Default `20s`.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Whether mounts read from the bucket directly if this daemon has no local copy, with a URL
    /// that is signed for the range. Default `false`.
    pub direct_reads: bool,
    /// How long such a URL is valid. Default `5min`.
    #[serde(with = "duration")]
    pub direct_reads_ttl: Duration,
    /// The URL of the service for mounts, if it isn't `endpoint`.
    pub public_endpoint: Option<String>,
    /// Constant, without a key: at most this many requests are in flight.
    #[serde(skip)]
    pub max_requests: usize,
    /// Follows from `timeout`, without a key: how long connecting may take.
    #[serde(skip)]
    pub connect_timeout: Duration,
}

/// The limits of S3 for the validity of a signed URL.
const MIN_TTL: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_hours(24 * 7);

impl Default for S3Config {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            prefix: String::new(),
            endpoint: None,
            region: None,
            path_style: None,
            ca_file: None,
            credentials_file: None,
            profile: None,
            timeout: Duration::from_secs(20),
            direct_reads: false,
            direct_reads_ttl: Duration::from_mins(5),
            public_endpoint: None,
            max_requests: 32,
            connect_timeout: Duration::from_secs(3),
        }
    }
}

impl S3Config {
    /// Checks all values. Returns the first key that can't work, with its value and the reason.
    pub fn check(&self) -> Result<(), (&'static str, String, &'static str)> {
        let bucket = &self.bucket;
        let is_bucket = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if bucket.len() < 3 || !bucket.bytes().all(is_bucket) {
            let reason = "it must be a bucket name of at least 3 letters, digits, -, . and _";
            return Err(("store.s3.bucket", bucket.clone(), reason));
        }
        let prefix = &self.prefix;
        let is_prefix = |byte: u8| is_bucket(byte) || byte == b'/';
        let has_empty = prefix.starts_with('/') || prefix.contains("//");
        if !prefix.bytes().all(is_prefix) || has_empty || prefix.contains("..") {
            let reason = "it must be a relative path of letters, digits, -, . and _";
            return Err(("store.s3.prefix", prefix.clone(), reason));
        }
        let endpoints = [
            ("store.s3.endpoint", &self.endpoint),
            ("store.s3.public_endpoint", &self.public_endpoint),
        ];
        for (key, endpoint) in endpoints {
            if let Some(endpoint) = endpoint
                && !is_endpoint(endpoint)
            {
                let reason = "it must be an http or https URL without credentials";
                return Err((key, cachewfs_base::redact(endpoint), reason));
            }
        }
        if !(MIN_TTL..=MAX_TTL).contains(&self.direct_reads_ttl) {
            let value = humantime::format_duration(self.direct_reads_ttl).to_string();
            let reason = "it must be between 1s and 7d";
            return Err(("store.s3.direct_reads_ttl", value, reason));
        }
        if self.timeout.is_zero() {
            let (value, reason) = ("0s".to_owned(), "it must be longer than 0s");
            return Err(("store.s3.timeout", value, reason));
        }
        Ok(())
    }

    /// Returns the prefix of all names: empty, or with a slash at the end.
    pub fn prefix(&self) -> String {
        match self.prefix.trim_end_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        }
    }

    /// Returns where the bucket is, for messages.
    pub fn place(&self) -> String {
        let endpoint = self.endpoint.as_deref().unwrap_or("AWS");
        format!("{} at {endpoint}", self.bucket)
    }
}

fn is_endpoint(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    })
}
