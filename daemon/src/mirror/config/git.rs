//! The `[git]` section of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::duration;

/// The `[git]` section: limits and settings of the git processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GitConfig {
    /// A git configuration file to include, for credential helpers, proxies and certificates. git's
    /// own configuration files of the machine and of the user are never read. Default none.
    pub config_file: Option<PathBuf>,
    /// Time limit of the first clone of a mirror, and of the first update after a clone or a
    /// restore. A publish and an answer to a client have limits that follow from it. Default `1h`.
    #[serde(with = "duration")]
    pub clone_timeout: Duration,
    /// Time limit of every other update. Default `5min`.
    #[serde(with = "duration")]
    pub fetch_timeout: Duration,
    /// How many threads git uses to find deltas. Default: the number of cores, but at most `4`.
    pub pack_threads: usize,
    /// Derived: time limit of asking upstream for its refs.
    #[serde(skip)]
    pub ls_remote_timeout: Duration,
    /// Derived: time limit of each local git command of a publish.
    #[serde(skip)]
    pub pack_timeout: Duration,
    /// Derived: time limit of fetching one batch of LFS objects, which has at most 1 GiB.
    #[serde(skip)]
    pub lfs_timeout: Duration,
}

/// The memory that each thread of git may use for its window of objects when it finds deltas, in
/// git's own units.
pub(crate) const PACK_WINDOW_MEMORY: &str = "256m";

impl Default for GitConfig {
    fn default() -> Self {
        Self {
            config_file: None,
            clone_timeout: Duration::from_hours(1),
            fetch_timeout: Duration::from_mins(5),
            ls_remote_timeout: Duration::from_mins(1),
            pack_timeout: Duration::from_hours(2),
            lfs_timeout: Duration::from_hours(1),
            pack_threads: std::thread::available_parallelism()
                .map_or(1, |cores| cores.get().min(4)),
        }
    }
}

impl GitConfig {
    /// Returns the settings for the first update of a mirror, which may fetch as much as a clone.
    pub(crate) fn for_first_update(&self) -> Self {
        Self {
            fetch_timeout: self.fetch_timeout.max(self.clone_timeout),
            ..self.clone()
        }
    }
}
