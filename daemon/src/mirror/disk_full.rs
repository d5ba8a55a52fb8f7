//! Whether git failed because its disk is full.

use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::volume::Volume;

/// With less room than this, in bytes, a disk counts as full; on a small one, with less than a fiftieth.
const NO_ROOM: u64 = 64 << 20;
const SMALLEST_SHARE: u64 = 50;

/// Returns whether a git process failed for want of room on the filesystem of `directory`, where all
/// mirrors and temporary files are.
///
/// git removes some of its temporary files when it fails, so there may be room again. Then the error
/// of the system call tells, in the words of the C library, not of git. Lines of upstream don't count.
pub(super) fn is_disk_full(stderr: &str, directory: &Path) -> bool {
    if stderr.is_empty() {
        // git answers "no" so.
        return false;
    }
    let errors = [Errno::NOSPC, Errno::DQUOT];
    let own = stderr.lines().filter(|line| !line.starts_with("remote:"));
    let stderr = own.collect::<Vec<_>>().join("\n").to_lowercase();
    errors
        .map(words_of)
        .iter()
        .any(|words| stderr.contains(words))
        || Volume::of(directory)
            .is_some_and(|volume| volume.free < NO_ROOM.min(volume.total / SMALLEST_SHARE))
}

/// Returns whether a file of `len` bytes finds room in `directory`.
pub(crate) fn has_room(directory: &Path, len: u64) -> bool {
    let Ok(file) = tempfile::tempfile_in(directory) else {
        return false;
    };
    let allocated = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len.max(1));
    // Some filesystems don't allocate ahead.
    !matches!(allocated, Err(Errno::NOSPC | Errno::DQUOT))
}

/// Returns what the C library says of an error in the locale that git runs in, in lower case.
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
