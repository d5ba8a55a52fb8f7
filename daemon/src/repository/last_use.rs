//! The time at which a mirror was last used, which survives a restart of the daemon.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::base::seconds_since_epoch;

/// The file in a mirror whose modification time is the mirror's last use.
const LAST_USE_FILE: &str = "cachewfs-used";

/// Returns when the mirror was last used, in seconds since the epoch. Returns now if the mirror has
/// no such file.
pub(super) fn used_at(mirror: &Path) -> u64 {
    let modified = mirror
        .join(LAST_USE_FILE)
        .metadata()
        .and_then(|used| used.modified());
    let since = modified
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or_else(seconds_since_epoch, |since| since.as_secs())
}

/// Stores `used_at`, in seconds since the epoch, as the last use of the mirror. Returns an error
/// with the path of the file.
pub(super) fn write_used_at(mirror: &Path, used_at: u64) -> Result<(), (PathBuf, io::Error)> {
    let path = mirror.join(LAST_USE_FILE);
    let time = UNIX_EPOCH + Duration::from_secs(used_at);
    let written = File::create(&path).and_then(|file| file.set_modified(time));
    written.map_err(|error| (path, error))
}
