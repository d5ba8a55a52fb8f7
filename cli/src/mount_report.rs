//! The result of `cachewfs mount`.

use std::path::PathBuf;

use cachewfs_fuse::MountOptions;
use serde::{Deserialize, Serialize};

/// A mount that works. The background process prints it when it is ready; the foreground process
/// prints it for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountReport {
    version: String,
    /// The id of the process that serves the mount.
    pid: u32,
    mount_point: PathBuf,
    daemons: Vec<String>,
    cache_dir: PathBuf,
    /// Why no daemon answers, or `None` if one does, or if nobody asked.
    pub(crate) outage: Option<String>,
}

impl MountReport {
    /// Returns the result of this process, which serves a mount with `options`.
    pub(crate) fn new(options: &MountOptions) -> Self {
        let mount_point = &options.mount_point;
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            mount_point: mount_point
                .canonicalize()
                .unwrap_or_else(|_| mount_point.clone()),
            daemons: options.daemons.clone(),
            cache_dir: options.cache_dir.clone(),
            outage: None,
        }
    }
}
