//! Whether git failed because the disk is full.

use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::base::Volume;

/// A disk counts as full if it has less free space than this, in bytes.
const NO_ROOM: u64 = 64 << 20;
/// A small disk counts as full if less than one part in this many is free.
const SMALLEST_SHARE: u64 = 50;

/// Returns whether a git process failed because the filesystem of `directory` is full. All mirrors
/// and temporary files are on that filesystem.
pub(super) fn is_disk_full(stderr: &str, directory: &Path) -> bool {
    if stderr.is_empty() {
        // git prints nothing if its exit code is merely the answer "no".
        return false;
    }
    let errors = [Errno::NOSPC, Errno::DQUOT];
    // git removes some of its temporary files when it fails, so there may be free space again by
    // now. Then only the text of the system call's error tells that the disk was full. The text
    // comes from the C library, so it doesn't vary with git. Lines that upstream sent don't count:
    // they are about its disk.
    let own = stderr.lines().filter(|line| !line.starts_with("remote:"));
    let stderr = own.collect::<Vec<_>>().join("\n").to_lowercase();
    errors
        .map(words_of)
        .iter()
        .any(|words| stderr.contains(words))
        || Volume::of(directory)
            .is_some_and(|volume| volume.free < NO_ROOM.min(volume.total / SMALLEST_SHARE))
}

/// Returns whether `directory` has space for a file of `len` bytes.
pub(crate) fn has_room(directory: &Path, len: u64) -> bool {
    let Ok(file) = tempfile::tempfile_in(directory) else {
        return false;
    };
    let allocated = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len.max(1));
    // Any other error says nothing about space: some filesystems can't allocate ahead.
    !matches!(allocated, Err(Errno::NOSPC | Errno::DQUOT))
}

/// Returns the C library's text for an error, in the locale that git runs in and in lower case.
fn words_of(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.rsplit_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_known_by_the_error_of_the_system_call() {
        let directory = tempfile::tempdir().unwrap();
        let is_full = |stderr: &str| is_disk_full(stderr, directory.path());

        assert!(is_full(
            "fatal: write error: No space left on device\nfatal: early EOF"
        ));
        assert!(is_full("fatal: x: Disk quota exceeded"));
        assert!(is_full("write /a/b: no space left on device"));
        assert!(!is_full("fatal: early EOF"));
        assert!(!is_full(
            "remote: No space left on device\nfatal: early EOF"
        ));
        assert!(!is_full(""));
    }
}
