//! Size and free space of a filesystem.

use std::path::Path;

/// The size of a filesystem, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    pub total: u64,
    /// The space that an unprivileged process may still write to.
    pub free: u64,
}

impl Volume {
    /// Returns the size of the filesystem of `directory`, or `None` if it can't be asked.
    pub fn of(directory: &Path) -> Option<Self> {
        let stat = rustix::fs::statvfs(directory).ok()?;
        Some(Self {
            total: stat.f_blocks.checked_mul(stat.f_frsize)?,
            free: stat.f_bavail.checked_mul(stat.f_frsize)?,
        })
    }
}
