//! The `[mirrors]` section of the configuration: how mirrors are kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::duration;

/// The `[mirrors]` section: how mirrors are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MirrorsConfig {
    /// How many updates and clones may run at once, whatever their host; a host of which none runs
    /// gets one all the same. Default `32`.
    pub jobs: usize,
    /// How many repositories may be waited for that have no mirror yet; who asks for one more is sent
    /// away. Default `1000`.
    pub max_new: usize,
    /// How long updates and publishes that are under way may go on after the daemon is told to
    /// stop; clones stop at once. Default `10s`.
    #[serde(with = "duration")]
    pub stop_timeout: Duration,
    /// The packs of a mirror are rolled up when there are more than this. Default `20`.
    pub repack_packs: usize,
    /// But no more often than this, unless there are five times as many. Default `10min`.
    #[serde(with = "duration")]
    pub repack_interval: Duration,
    /// Mirrors that nobody asked for in this time are removed; what is published stays. `0s`: never.
    /// Default `30days`.
    #[serde(with = "duration")]
    pub remove_unused_after: Duration,
    /// How long to wait after a failure; it doubles with each further one. Default `5s`.
    #[serde(with = "duration")]
    pub retry_first: Duration,
    /// How long to wait at most. Default `1h`.
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
