//! The options of a mount, and their defaults.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::token::SecretToken;

/// The options of a mount.
///
/// As JSON they go from a mount's process to the one that replaces it. An option that the older of
/// the two doesn't know has its default.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct MountOptions {
    /// The mount point: an existing directory.
    pub mount_point: PathBuf,
    /// The base URLs of the daemons. If one fails, the mount asks the next.
    pub daemons: Vec<String>,
    /// A file with the token that requests to the daemons carry. Changes to it take effect within
    /// seconds.
    pub token_file: Option<PathBuf>,
    /// A token that requests carry instead of the one in a file.
    #[serde(skip)]
    pub secret_token: Option<SecretToken>,
    /// The directory of cached chunks. Several mounts may share it.
    pub cache_dir: PathBuf,
    /// At most this many bytes of disk for the cache.
    pub cache_max_bytes: u64,
    /// Whether users other than the mounting user may read the mount.
    pub allow_other: bool,
    /// Whether the kernel refuses to run programs of the mount.
    pub noexec: bool,
    /// The owner of the repositories' directories, for all users.
    pub owner: Owner,
    /// How long a read waits for the network before it fails with EIO.
    pub read_timeout: Duration,
    /// How long any call other than a read waits for the network before it fails with EAGAIN.
    pub lookup_timeout: Duration,
    /// How often the mount asks for a newer snapshot of a repository that is in use.
    pub poll_interval: Duration,
    /// The part of a snapshot that hydration fetches before anybody reads it.
    pub hydrate: Hydrate,
    /// At most this many bytes per second for hydration, or no limit if `None`.
    pub hydrate_max_rate: Option<u64>,
    /// Whether the mount follows a daemon's redirects to the bucket (direct reads).
    pub direct_reads: bool,
    /// Whether the kernel may read completely cached files itself (FUSE passthrough).
    pub passthrough: bool,
    /// The log file. The mount doesn't use it: a process that replaces the mount's asks for it.
    pub log: Option<PathBuf>,
}

/// The user and the group that own a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The id of the user.
    pub uid: u32,
    /// The id of the group.
    pub gid: u32,
}

impl Owner {
    /// Root and its group.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };

    /// Returns the user and the group of this process.
    pub fn of_this_process() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }
}

/// The part of a snapshot that hydration fetches in the background, from the first lookup of its
/// repository on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hydrate {
    /// Nothing.
    Off,
    /// Everything that a checkout needs.
    Hot,
    /// Everything, in the order of the archive.
    All,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self::new(PathBuf::new(), Vec::new())
    }
}

impl MountOptions {
    /// Returns the default options for a mount of `daemons` at `mount_point`.
    pub fn new(mount_point: PathBuf, daemons: Vec<String>) -> Self {
        Self {
            mount_point,
            daemons,
            token_file: None,
            secret_token: None,
            cache_dir: default_cache_dir(),
            cache_max_bytes: 50 << 30,
            allow_other: false,
            noexec: false,
            owner: Owner::of_this_process(),
            read_timeout: Duration::from_mins(1),
            lookup_timeout: Duration::from_secs(5),
            poll_interval: Duration::from_secs(10),
            hydrate: Hydrate::All,
            hydrate_max_rate: None,
            direct_reads: true,
            passthrough: true,
            log: None,
        }
    }
}

/// Returns `/var/cache/cachewfs` for root, and a directory below the user's cache for other users.
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
