//! Files of the cache that are written under a temporary name, and then get their own.
//!
//! A process that is killed in between leaves such a file. No other file gets its name, so another
//! process removes it: when it opens the cache, or when it counts the cache to evict.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use tempfile::NamedTempFile;

/// How temporary names begin. No other name in the cache begins so.
const PREFIX: &str = ".";
/// How long after its last change a file counts as left behind. A file needs its temporary name
/// for milliseconds; the rest is for a process that is stopped, or for a machine that sleeps.
const MIN_AGE: Duration = Duration::from_hours(1);

/// Creates a file with a temporary name in `directory`.
pub(super) fn create(directory: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(PREFIX)
        .tempfile_in(directory)
}

/// Removes the file at `path` if a killed process has left it.
pub(super) fn remove_left(path: &Path) {
    let name = path.file_name().unwrap_or_default();
    if is_temporary(name) && age(path).is_some_and(|age| age >= MIN_AGE) {
        // Another process may have been faster.
        fs::remove_file(path).ok();
    }
}

fn is_temporary(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

fn age(path: &Path) -> Option<Duration> {
    path.symlink_metadata()
        .ok()?
        .modified()
        .ok()?
        .elapsed()
        .ok()
}
