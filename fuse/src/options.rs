//! What a mount is asked to do.

use std::path::PathBuf;
use std::time::Duration;

use crate::fetch::SecretToken;

/// How a repository is mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Where; an existing directory.
    pub mount_point: PathBuf,
    /// Base URLs of the daemons, each tried in turn.
    pub daemons: Vec<String>,
    /// A file with the token that the daemons are shown; read again when it changes.
    pub token_file: Option<PathBuf>,
    /// A token that they are shown instead.
    pub secret_token: Option<SecretToken>,
    /// Where chunks are kept. Several mounts may share it.
    pub cache_dir: PathBuf,
    /// Bytes of disk that the cache may take.
    pub cache_max_bytes: u64,
    /// Whether users other than the one who mounts may look.
    pub allow_other: bool,
    /// How long a read waits for the network before it fails with EIO.
    pub read_timeout: Duration,
    /// How long anything but a read waits for the network.
    pub lookup_timeout: Duration,
    /// How often the daemon is asked for a newer snapshot of a repository that is in use.
    pub poll_interval: Duration,
    /// What is fetched before anyone reads it.
    pub hydrate: Hydrate,
    /// Bytes per second that hydration may take; no limit if absent.
    pub hydrate_max_rate: Option<u64>,
    /// Whether bytes are read where a daemon points, if it does: from the bucket behind it.
    pub direct_reads: bool,
    /// Whether complete files are read by the kernel without asking this process.
    pub passthrough: bool,
}

/// What is fetched in the background, from the first lookup of a repository on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hydrate {
    /// Nothing.
    Off,
    /// All that a checkout needs.
    Hot,
    /// Everything, in the order of the archive.
    All,
}

impl MountOptions {
    /// The defaults, for a mount of `daemons` at `mount_point`.
    pub fn new(mount_point: PathBuf, daemons: Vec<String>) -> Self {
        Self {
            mount_point,
            daemons,
            token_file: None,
            secret_token: None,
            cache_dir: default_cache_dir(),
            cache_max_bytes: 50 << 30,
            allow_other: false,
            read_timeout: Duration::from_mins(1),
            lookup_timeout: Duration::from_secs(5),
            poll_interval: Duration::from_secs(10),
            hydrate: Hydrate::All,
            hydrate_max_rate: None,
            direct_reads: true,
            passthrough: true,
        }
    }
}

/// `/var/cache/cachewfs` for root, below the user's cache directory for anyone else.
fn default_cache_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/cache/cachewfs");
    }
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("cachewfs")
}
