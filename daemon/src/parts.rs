//! [`Parts`]: abilities of a daemon beyond the store on disk.

use std::sync::Arc;

use cachewfs_store::OpenBucket;

use crate::auth::ReadPolicy;
use crate::base::ConfigError;
use crate::config::Config;
use crate::traces::TraceLinks;

/// Abilities of a daemon beyond the store on disk. The program that starts the daemon brings them,
/// so that `cachewfs mount --local`, which needs none, doesn't contain them.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Opens the bucket of `[store.s3]`.
    pub bucket: Option<Arc<dyn OpenBucket>>,
    /// Reads the policy that `[auth]` names.
    pub read_policy: Option<ReadPolicy>,
    /// Links the spans of this process. Its subscriber sends them to the endpoint of `[tracing]`.
    pub trace_links: Option<Arc<dyn TraceLinks>>,
}

impl Parts {
    /// Returns an error for the first section or key that needs a missing part. `auth` itself
    /// refuses policies that it can't read.
    pub(crate) fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let (s3, endpoint) = (&config.store.s3, &config.tracing.endpoint);
        let lacks = [
            ("[store.s3]", s3.is_some() && self.bucket.is_none()),
            (
                "tracing.endpoint",
                endpoint.is_some() && self.trace_links.is_none(),
            ),
        ];
        match lacks.into_iter().find(|(_, is_missing)| *is_missing) {
            Some((key, _)) => Err(ConfigError::Unsupported { key }),
            None => Ok(()),
        }
    }
}
