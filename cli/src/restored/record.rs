//! The record of a restore, in the git directory of the clone.
//!
//! ```text
//! .git/cachewfs-restore/
//!   snapshot     what was restored, HEAD, and the refs that the restore wrote
//!   moving       the commit to which the work tree is being moved
//!   index        the index of that commit, until it replaces that of the clone
//!   log          the messages of the process that fetches the history behind
//! ```

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cachewfs_format::GitHead;

/// The directory with the record.
#[derive(Debug)]
pub(crate) struct RestoreRecord {
    /// The git directory of the clone.
    pub(crate) git_dir: PathBuf,
}

/// The state that a restore wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordedSnapshot {
    /// The repository and the kind of archive, in one line.
    pub(crate) what: String,
    pub(crate) head: GitHead,
    /// The `packed-refs` of the clone.
    pub(crate) refs: Vec<u8>,
}

impl RestoreRecord {
    pub(crate) fn new(git_dir: PathBuf) -> Self {
        Self { git_dir }
    }

    /// Finds the record of the clone at `target`. Returns `None` if no restore made it.
    pub(crate) fn find(target: &Path) -> Option<Self> {
        [target.join(".git"), target.to_owned()]
            .into_iter()
            .map(Self::new)
            .find(|record| record.snapshot_path().is_file())
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.git_dir.join("cachewfs-restore")
    }

    /// The messages of the process that fetches the history behind.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.directory().join("log")
    }

    fn snapshot_path(&self) -> PathBuf {
        self.directory().join("snapshot")
    }

    pub(super) fn moving_path(&self) -> PathBuf {
        self.directory().join("moving")
    }

    pub(super) fn index_path(&self) -> PathBuf {
        self.directory().join("index")
    }

    pub(crate) fn read(&self) -> Result<RecordedSnapshot> {
        let path = self.snapshot_path();
        let read = || -> Result<_> {
            let bytes = fs::read(&path)?;
            let mut lines = bytes.splitn(3, |&byte| byte == b'\n');
            let (what, head) = (lines.next(), lines.next());
            Ok(RecordedSnapshot {
                what: String::from_utf8_lossy(what.unwrap_or_default()).into_owned(),
                head: GitHead::parse(&[head.unwrap_or_default(), b"\n"].concat())?,
                refs: lines.next().unwrap_or_default().to_owned(),
            })
        };
        read().with_context(|| format!("can't read {}", path.display()))
    }

    /// Replaces the record in one step.
    pub(crate) fn write(&self, snapshot: &RecordedSnapshot) -> Result<()> {
        let RecordedSnapshot { what, head, refs } = snapshot;
        let bytes = [what.as_bytes(), b"\n", &head.to_file(), refs].concat();
        let write = || {
            fs::create_dir_all(self.directory())?;
            let new = self.directory().join("snapshot.new");
            fs::File::create(&new)?.write_all(&bytes)?;
            fs::rename(new, self.snapshot_path())
        };
        write().with_context(|| format!("can't write {}", self.snapshot_path().display()))
    }

    /// Returns the commit to which a process that was killed moved the work tree.
    pub(super) fn moving(&self) -> Option<String> {
        fs::read_to_string(self.moving_path()).ok()
    }

    /// Notes that the work tree is where HEAD is.
    pub(super) fn end_move(&self) -> Result<()> {
        match fs::remove_file(self.moving_path()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let git_dir = directory.path().join(".git");
        assert!(RestoreRecord::find(directory.path()).is_none());
        let written = RecordedSnapshot {
            what: "checkout of h/a".to_owned(),
            head: GitHead::Branch(b"main".to_vec()),
            refs: b"# pack-refs\n11 refs/heads/main\n".to_vec(),
        };

        RestoreRecord::new(git_dir).write(&written).unwrap();

        let found = RestoreRecord::find(directory.path()).unwrap();
        assert_eq!(found.read().unwrap(), written);
    }
}
