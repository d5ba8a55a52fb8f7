//! Lets several daemons share a store in a directory: none deletes a segment that another one is
//! about to name.
//!
//! A publish that finds a segment in the store makes it young again, so the grace period keeps it
//! until the manifest is written. A shared lock makes this one step with the look: a collector,
//! which takes the lock exclusively, can't delete the segment in between.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use super::TierError;
use super::directory::Directory;
use super::key::Shelf;

/// Older temporary files were left by a daemon that was killed.
const ABANDONED: Duration = Duration::from_hours(24);

impl Directory {
    /// Locks a shelf while segments are stored. Many daemons may hold this lock at the same time.
    pub(super) fn lock_for_storing(&self, shelf: &Shelf) -> Result<File, TierError> {
        self.lock_segments(shelf, File::lock_shared)
    }

    /// Locks a shelf while its objects are looked at and deleted. Meanwhile no daemon stores a
    /// segment, or counts on one that exists already.
    pub(super) fn lock_for_deleting(&self, shelf: &Shelf) -> Result<File, TierError> {
        self.lock_segments(shelf, File::lock)
    }

    /// Locks the segments of a shelf with `lock`. The kernel releases the lock when the file is
    /// closed or the daemon dies.
    fn lock_segments(
        &self,
        shelf: &Shelf,
        lock: fn(&File) -> io::Result<()>,
    ) -> Result<File, TierError> {
        let directory = self.directory(shelf);
        fs::create_dir_all(&directory).map_err(TierError::at(&directory))?;
        let path = directory.join("segments.lock");
        File::create(&path)
            .and_then(|file| lock(&file).map(|()| file))
            .map_err(TierError::at(path))
    }

    /// Returns whether `path` is on the filesystem of the store.
    pub(super) fn is_beside(&self, path: &Path) -> io::Result<bool> {
        Ok(fs::metadata(path)?.dev() == fs::metadata(&self.tmp)?.dev())
    }

    /// Moves a finished file to the filesystem of the store if it is on another one. Returns its
    /// path.
    pub(super) fn move_beside(&self, file: PathBuf) -> Result<PathBuf, TierError> {
        if self.is_beside(&file).map_err(TierError::at(&file))? {
            return Ok(file);
        }
        // A rename works within one filesystem only.
        let copy = || {
            let mut to = NamedTempFile::new_in(&self.tmp)?;
            io::copy(&mut File::open(&file)?, &mut to)?;
            fs::remove_file(&file)?;
            to.into_temp_path().keep().map_err(|error| error.error)
        };
        copy().map_err(TierError::at(&self.tmp))
    }

    /// Removes the files that killed daemons left in the staging directory.
    pub(super) fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.tmp)? {
            let path = entry?.path();
            if is_abandoned(&path) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// Returns whether `path` is a file that hasn't been written to for long.
fn is_abandoned(path: &Path) -> bool {
    let metadata = fs::symlink_metadata(path).ok();
    let written = metadata.filter(fs::Metadata::is_file);
    let written = written.and_then(|metadata| metadata.modified().ok());
    written.is_some_and(|time| {
        SystemTime::now()
            .duration_since(time)
            .is_ok_and(|age| age > ABANDONED)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use cachewfs_format::{Digest, RepoName, SegmentId};

    use super::*;
    use crate::key::Key;
    use crate::testing::now;
    use crate::{Collection, DiskTier, Keep, NewSegment, Store};

    fn tier(root: &Path) -> (DiskTier, RepoName) {
        let tier = DiskTier::create(root, &root.join("tmp")).unwrap();
        (tier, RepoName::parse("example.com/a").unwrap())
    }

    #[test]
    fn a_segment_that_is_stored_again_is_not_deleted_before_a_manifest_names_it() {
        let root = tempfile::tempdir().unwrap();
        let (tier, repo) = tier(root.path());
        let store = Store::new(tier.clone());
        let id = |byte: u8| SegmentId(Digest::of(&[byte]));
        let path = |byte| {
            tier.directory()
                .path(&Key::segment(&Shelf::of_snapshots(&repo), id(byte)))
        };
        let new = |byte: u8| {
            let file = root.path().join("tmp").join(byte.to_string());
            File::create(&file).unwrap().write_all(b"x").unwrap();
            let id = id(byte);
            NewSegment { id, file, len: 1 }
        };
        now(store.put_segments(&repo, vec![new(1), new(2)])).unwrap();
        let long_ago = SystemTime::now() - 2 * ABANDONED;
        for byte in [1, 2] {
            let segment = File::open(path(byte)).unwrap();
            segment.set_modified(long_ago).unwrap();
        }

        now(store.put_segments(&repo, vec![new(1)])).unwrap();
        let keep = Keep {
            snapshots: 1,
            age: ABANDONED,
            grace: ABANDONED,
        };
        let collection = Collection {
            keep,
            is_dry_run: false,
            is_stopping: &|| false,
        };
        let collected = now(store.collect(&repo, collection)).unwrap();

        assert_eq!((collected.segments, collected.young_segments), (1, 1));
        assert!(path(1).exists());
        assert!(!path(2).exists());
    }

    #[test]
    fn old_staging_files_are_removed_and_new_ones_kept() {
        let root = tempfile::tempdir().unwrap();
        let (tier, _) = tier(root.path());
        let [old, new] = ["old", "new"].map(|name| root.path().join("tmp").join(name));
        for path in [&old, &new] {
            File::create(path).unwrap();
        }
        let long_ago = SystemTime::now() - 2 * ABANDONED;
        File::open(&old).unwrap().set_modified(long_ago).unwrap();

        tier.directory().sweep().unwrap();

        assert!(!old.exists() && new.exists());
    }
}
