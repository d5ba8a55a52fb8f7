//! How much room there is on the filesystem of a directory.

use std::path::Path;

/// Of a filesystem, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) total: u64,
    /// What a process without privileges may still write.
    pub(crate) free: u64,
}

impl Volume {
    /// That of `directory`; `None` if it doesn't say.
    pub(crate) fn of(directory: &Path) -> Option<Self> {
        let stat = rustix::fs::statvfs(directory).ok()?;
        Some(Self {
            total: stat.f_blocks.checked_mul(stat.f_frsize)?,
            free: stat.f_bavail.checked_mul(stat.f_frsize)?,
        })
    }
}
