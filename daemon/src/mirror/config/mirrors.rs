//! The `[mirrors]` section of the configuration: schedule and maintenance of mirrors.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::duration;

/// The `[mirrors]` section: schedule and maintenance of mirrors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MirrorsConfig {
    /// How many updates and clones of all hosts together may run at once. A host of which none runs
    /// gets one all the same. Default `32`.
    pub jobs: usize,
    /// How many repositories without a mirror clients may wait for at once. A request for one more
    /// gets status 503. This bounds memory and requests to upstream if a client makes names up.
    /// Default `1000`.
    pub max_new: usize,
    /// How long updates and publishes in flight may go on once the daemon begins no more jobs.
    /// Clones stop at once. Default `10s`.
    #[serde(with = "duration")]
    pub stop_timeout: Duration,
    /// How many packs a mirror may have before the daemon rolls the small ones up into larger ones.
    /// Default `20`.
    pub repack_packs: usize,
    /// The shortest time between two such repacks of one mirror, unless it has five times as many
    /// packs. Default `10min`.
    #[serde(with = "duration")]
    pub repack_interval: Duration,
    /// How long a mirror is kept after the last request for it. Its snapshots stay published. `0s`
    /// means that no mirror is removed. Default `30days`.
    #[serde(with = "duration")]
    pub remove_unused_after: Duration,
    /// The backoff after the first failure of a repository. It doubles with each further failure.
    /// Default `5s`.
    #[serde(with = "duration")]
    pub retry_first: Duration,
    /// The longest backoff. Default `1h`.
    #[serde(with = "duration")]
    pub retry_max: Duration,
}

impl Default for MirrorsConfig {
    fn default() -> Self {
        Self {
            jobs: 32,
            max_new: 1000,
            stop_timeout: Duration::from_secs(10),
            repack_packs: 20,
            repack_interval: Duration::from_mins(10),
            remove_unused_after: Duration::from_hours(30 * 24),
            retry_first: Duration::from_secs(5),
            retry_max: Duration::from_hours(1),
        }
    }
}
