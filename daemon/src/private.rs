//! Directories into which only the daemon's user may look: mirrors and segments are for clients that the
//! policy lets read, not for all users of the machine.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use tracing::warn;

/// Permissions of the group and of all others.
const OF_OTHERS: u32 = 0o077;
const WRITE_FOR_ALL: u32 = 0o002;

/// Makes `directory`, and what leads there, for the daemon's user alone. Warns if it is there already, and
/// open to others.
pub(crate) fn create_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    if is_open_to_others(directory)? {
        let path = directory.display();
        warn!(
            %path,
            "Other users of this machine may look into {path}: run chmod go= {path} {path}/*"
        );
    }
    Ok(())
}

/// Returns whether others may read something in `directory`, or put something there. A volume of Kubernetes
/// belongs to a group, and what the daemon made in it does not.
fn is_open_to_others(directory: &Path) -> io::Result<bool> {
    let metadata = directory.metadata()?;
    if !is_open(&metadata) {
        return Ok(false);
    }
    if metadata.mode() & WRITE_FOR_ALL != 0 {
        return Ok(true);
    }
    for entry in directory.read_dir()? {
        if is_open(&entry?.metadata()?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_open(metadata: &Metadata) -> bool {
    !metadata.is_symlink() && metadata.mode() & OF_OTHERS != 0
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_is_open_if_others_get_at_what_is_in_it() {
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
