//! The `[mirrors]` section of the configuration: schedule and maintenance of mirrors.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::duration;

/// The `[mirrors]` section: schedule and maintenance of mirrors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MirrorsConfig {
    /// Namespaces of refs to mirror beside branches and tags, such as `refs/notes/`. Default none.
    pub namespaces: Vec<String>,
    /// How long a mirror is kept after the last request for it. Its snapshots stay published. `0s`
    /// means that no mirror is removed. Default `30days`.
    #[serde(with = "duration")]
    pub remove_unused_after: Duration,
    /// The longest backoff after failures of a repository. Default `1h`.
    #[serde(with = "duration")]
    pub retry_max: Duration,
    /// Derived: the backoff after the first failure of a repository. It doubles with each further
    /// failure.
    #[serde(skip)]
    pub retry_first: Duration,
    /// Constant: how many repositories without a mirror clients may wait for at once. A request for
    /// one more gets status 503. This bounds memory and requests to upstream if a client makes
    /// names up.
    #[serde(skip)]
    pub max_new: usize,
    /// Constant: how long updates and publishes in flight may go on once the daemon begins no more
    /// jobs. Clones stop at once.
    #[serde(skip)]
    pub stop_timeout: Duration,
    /// Constant: how many packs a mirror may have before the daemon rolls the small ones up into
    /// larger ones.
    #[serde(skip)]
    pub repack_packs: usize,
    /// Derived: the shortest time between two such repacks of one mirror, unless it has five times
    /// as many packs.
    #[serde(skip)]
    pub repack_interval: Duration,
}

impl Default for MirrorsConfig {
    fn default() -> Self {
        Self {
            namespaces: Vec::new(),
            remove_unused_after: Duration::from_hours(30 * 24),
            retry_max: Duration::from_hours(1),
            retry_first: Duration::from_secs(5),
            max_new: 1000,
            stop_timeout: Duration::from_secs(10),
            repack_packs: 20,
            repack_interval: Duration::from_mins(10),
        }
    }
}
