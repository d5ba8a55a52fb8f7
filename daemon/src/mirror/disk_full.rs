//! Whether git failed because its disk is full.

use std::path::Path;

use rustix::io::Errno;

use crate::volume::Volume;

/// With less room than this, in bytes, git can't write its next block.
const NO_ROOM: u64 = 64 << 10;

/// Returns whether a git process failed for want of room on the filesystem of `directory`, where all
/// mirrors and temporary files are.
///
/// git removes its temporary files when it fails, so there may be room again. Then the only witness
/// is the error of the system call, in the words of the C library, which git prints in all versions.
pub(super) fn is_disk_full(stderr: &str, directory: &Path) -> bool {
    let errors = [Errno::NOSPC, Errno::DQUOT];
    let stderr = stderr.to_lowercase();
    errors
        .map(words_of)
        .iter()
        .any(|words| stderr.contains(words))
        || Volume::of(directory).is_some_and(|volume| volume.free < NO_ROOM)
}

/// Returns what the C library says of an error in the locale that git runs in, in lower case, as
/// git-lfs has it.
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
    }
}
