//! Directories that only the daemon's user may read.
//!
//! The policy decides which clients may read mirrors and segments. Other users of the machine must
//! not get around it.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use tracing::warn;

/// The permission bits of the group and of all other users.
const GROUP_AND_OTHERS: u32 = 0o077;
/// The permission bit that lets all other users write.
const WRITE_BY_OTHERS: u32 = 0o002;

/// Creates `directory` and its missing parents, for the daemon's user alone. If the directory
/// exists and is open to other users, it logs a warning.
pub fn create_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    if is_open_to_others(directory)? {
        let path = directory.display();
        warn!(
            %path,
            "Other users of this machine can read {path}: run chmod go= {path} {path}/*"
        );
    }
    Ok(())
}

/// Returns whether other users may read anything in `directory`, or create files there.
fn is_open_to_others(directory: &Path) -> io::Result<bool> {
    let metadata = directory.metadata()?;
    if !is_open(&metadata) {
        return Ok(false);
    }
    if metadata.mode() & WRITE_BY_OTHERS != 0 {
        return Ok(true);
    }
    // Kubernetes gives the root of a volume to a group (fsGroup). This is no problem as long as
    // everything inside is closed to that group.
    for entry in directory.read_dir()? {
        if is_open(&entry?.metadata()?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_open(metadata: &Metadata) -> bool {
    !metadata.is_symlink() && metadata.mode() & GROUP_AND_OTHERS != 0
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_is_open_if_others_can_read_its_files_or_write_there() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a/data");
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        let is_open = || is_open_to_others(&directory).unwrap();

        create_private(&directory).unwrap();
        assert_eq!(directory.metadata().unwrap().mode() & 0o777, 0o700);
        let mirrors = directory.join("mirrors");
        fs::create_dir(&mirrors).unwrap();
        set(&mirrors, 0o755).unwrap();
        assert!(!is_open());

        set(&directory, 0o2770).unwrap();
        assert!(is_open());
        set(&mirrors, 0o700).unwrap();
        assert!(!is_open(), "only names can be seen");
        set(&directory, 0o777).unwrap();
        assert!(is_open());
    }
}
