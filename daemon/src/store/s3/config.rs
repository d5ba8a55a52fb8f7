//! The `[store.s3]` section of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::duration;

/// The `[store.s3]` section: the bucket that has what is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3Config {
    /// The bucket, which must exist. Must be given.
    pub bucket: String,
    /// Where in it: `<prefix>/v1/…`. Default none.
    pub prefix: String,
    /// URL of the service, if it isn't AWS.
    pub endpoint: Option<String>,
    /// Region of the bucket. Default: as in AWS' own tools, or `us-east-1` with an `endpoint`.
    pub region: Option<String>,
    /// Whether the bucket is in the path of URLs rather than in the name of the host. Default: with an
    /// `endpoint`.
    pub path_style: Option<bool>,
    /// Certificates (PEM) of authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// A file with credentials as AWS' tools have it. Default: environment, `~/.aws`, web identity,
    /// container, instance.
    pub credentials_file: Option<PathBuf>,
    /// The profile in that file, or in `~/.aws`. Default `default`.
    pub profile: Option<String>,
    /// How many requests may be under way at once. Default `32`.
    pub max_requests: usize,
    /// How long connecting may take. Default `3s`.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How long a request may take to be answered, and how long an answer may stand still. Default `20s`.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Whether mounts are sent to the bucket, with a URL that is signed for the range, for what this daemon
    /// has no copy of. Default `false`.
    pub direct_reads: bool,
    /// How long such a URL is good for. Default `5m`.
    #[serde(with = "duration")]
    pub direct_reads_ttl: Duration,
    /// URL of the service as mounts reach it, if not as the daemon does. Default: `endpoint`.
    pub public_endpoint: Option<String>,
}

/// What S3 takes for the time that a signed URL is good for.
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
            max_requests: 32,
            connect_timeout: Duration::from_secs(3),
            timeout: Duration::from_secs(20),
            direct_reads: false,
            direct_reads_ttl: Duration::from_mins(5),
            public_endpoint: None,
        }
    }
}

impl S3Config {
    /// Says which key can't work, with its value and why.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String, &'static str)> {
        let bucket = &self.bucket;
        let is_bucket = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if bucket.len() < 3 || !bucket.bytes().all(is_bucket) {
            let reason = "it must be the name of a bucket";
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
                return Err((key, crate::mirror::redact(endpoint), reason));
            }
        }
        if !(MIN_TTL..=MAX_TTL).contains(&self.direct_reads_ttl) {
            let value = humantime::format_duration(self.direct_reads_ttl).to_string();
            let reason = "it must be between 1s and 7days";
            return Err(("store.s3.direct_reads_ttl", value, reason));
        }
        let positive = [
            ("store.s3.max_requests", self.max_requests >= 1),
            ("store.s3.connect_timeout", !self.connect_timeout.is_zero()),
            ("store.s3.timeout", !self.timeout.is_zero()),
        ];
        match positive.into_iter().find(|(_, is_good)| !is_good) {
            Some((key, _)) => Err((key, "0".to_owned(), "it must be positive")),
            None => Ok(()),
        }
    }

    /// What stands before all names; empty, or ends with a slash.
    pub(super) fn prefix(&self) -> String {
        match self.prefix.trim_end_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        }
    }

    /// Where the bucket is, for people.
    pub(crate) fn place(&self) -> String {
        let endpoint = self.endpoint.as_deref().unwrap_or("AWS");
        format!("{} at {endpoint}", self.bucket)
    }
}

fn is_endpoint(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    })
}
