//! The directory in which a clone is made before it gets its name.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::error::CliError;

/// How the names of these directories begin.
const PREFIX: &str = ".cachewfs-clone-";
/// How old a directory that nobody has locked must be to count as left by a killed process. Its
/// process locks it right after it has created it.
const MIN_AGE: Duration = Duration::from_mins(1);

/// Fails unless `target` is an empty directory, or doesn't exist.
pub(crate) fn refuse_used_directory(target: &Path) -> Result<()> {
    match fs::read_dir(target).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(false) => Err(CliError::NotEmpty {
            directory: target.display().to_string(),
        }
        .into()),
        Err(error) => Err(error).with_context(|| format!("can't clone into {}", target.display())),
    }
}

/// A directory that is removed unless the clone is complete.
#[derive(Debug)]
pub(crate) struct CloneStaging {
    directory: TempDir,
    /// The lock that tells other processes that the directory is in use. `None` on a filesystem
    /// without locks: there, nobody removes what a killed process left.
    _lock: Option<File>,
}

impl CloneStaging {
    /// Creates a directory in `parent`, where the clone will be. Removes those that killed
    /// processes have left there.
    pub(crate) fn create(parent: &Path) -> Result<Self> {
        remove_left(parent);
        // On the filesystem of the target: only then is the rename atomic. The umask limits its
        // mode, as for a directory that git creates.
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(parent)
            .with_context(|| format!("can't create a directory in {}", parent.display()))?;
        Ok(Self {
            _lock: lock(directory.path()),
            directory,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Moves the complete clone to `target`.
    pub(crate) fn rename(self, target: &Path) -> std::io::Result<()> {
        let staged = self.directory.keep();
        fs::rename(&staged, target).inspect_err(|_| {
            // Another process has created files at the target since it was checked.
            fs::remove_dir_all(&staged).ok();
        })
    }
}

/// Locks a directory until the file is closed. Returns `None` if another process has locked it, or
/// if the filesystem has no locks.
fn lock(directory: &Path) -> Option<File> {
    let file = File::open(directory).ok()?;
    file.try_lock().is_ok().then_some(file)
}

/// Removes the directories in `parent` that no process uses any more.
fn remove_left(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_staging = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_staging && let Some(_lock) = lock_left(&entry.path()) {
            // It may belong to another user. Then it stays.
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// Locks a directory that is old enough and that no process has locked.
fn lock_left(directory: &Path) -> Option<File> {
    let metadata = directory.symlink_metadata().ok()?;
    let age = metadata.modified().ok()?.elapsed().ok()?;
    if metadata.is_dir() && age >= MIN_AGE {
        lock(directory)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_directories_of_killed_processes_are_removed() {
        let parent = TempDir::new().unwrap();
        let make_older = |directory: &Path| {
            let file = File::open(directory).unwrap();
            file.set_modified(SystemTime::now() - MIN_AGE).unwrap();
        };
        let leave = || {
            let staging = CloneStaging::create(parent.path()).unwrap();
            let path = staging.directory.keep();
            fs::create_dir(path.join(".git")).unwrap();
            path
        };
        let (killed, young) = (leave(), leave());
        let live = CloneStaging::create(parent.path()).unwrap();
        make_older(&killed);
        make_older(live.path());

        let next = CloneStaging::create(parent.path()).unwrap();

        assert!(!killed.exists());
        assert!(young.exists() && live.path().exists() && next.path().exists());
    }
}
