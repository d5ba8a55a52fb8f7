//! Writes the files of a run of the work tree.
//!
//! The table of a run's segment says where each file is. The paths of all runs are checked in the
//! order of the index before a file is written: no path is outside of the work tree, is below
//! another file, or is one that git would not check out.

use std::io;
use std::path::Path;
use std::sync::Arc;

use cachewfs_format::{Content, Entry, EntryKind, PathSequence, SegmentTable};

use super::RestoreError;
use super::error::write_error;
use super::tree_writer::{Permissions, Taking, TreeWriter, below};
use crate::cache::SegmentFile;
use crate::segment::{ReadError, Segment};
use crate::traffic::Purpose;
use crate::view::Run;

/// The git modes of a file and of a symbolic link.
const FILE: u32 = 0o100_644;
const SYMLINK: u32 = 0o120_000;
/// At most this many bytes of a file are in memory.
const PIECE_LEN: u64 = 1 << 20;

/// A run whose bytes are in the cache and whose paths were checked.
#[derive(Debug)]
pub(super) struct CheckedRun {
    table: Arc<SegmentTable>,
    file: Arc<SegmentFile>,
    large_file: Option<Arc<Segment>>,
}

impl CheckedRun {
    /// Checks the paths of `run`, which follow those that are in `paths` already.
    pub(super) async fn check(run: &Run, paths: &mut PathSequence) -> Result<Self, RestoreError> {
        let repo = run.members.location().repo;
        let table = run.members.table(Purpose::Background).await;
        let table = table.map_err(|error| RestoreError::of_read(repo.as_str(), error))?;
        for entry in table.entries() {
            let refused = |source| RestoreError::Path {
                path: entry.path.to_string(),
                source,
            };
            let mode = match entry.kind {
                EntryKind::Symlink(_) => SYMLINK,
                EntryKind::File(_) | EntryKind::Directory => FILE,
            };
            entry.path.check_out_as(mode).map_err(refused)?;
            paths.push(&entry.path).map_err(refused)?;
        }
        let file = run
            .members
            .file(&table)
            .ok_or_else(|| RestoreError::of_read(repo.as_str(), ReadError::Evicted))?;
        Ok(Self {
            table,
            file,
            large_file: run.large_file.clone(),
        })
    }

    /// Writes the files below `root`.
    pub(super) fn write(&self, root: &Path, taking: Taking) -> Result<(), RestoreError> {
        let mut tree = TreeWriter::open(root).map_err(write_error(root))?;
        for entry in self.table.entries() {
            let path = entry.path.as_bytes();
            let failed = write_error(&below(root, path));
            match &entry.kind {
                EntryKind::Directory => tree.directory(path).map_err(failed)?,
                EntryKind::Symlink(target) => {
                    tree.symlink(path, target, entry.mtime).map_err(failed)?;
                }
                EntryKind::File(Content::Inline { offset }) => tree
                    .file(path, attributes(entry), |file| {
                        self.copy(*offset, entry.size, file)
                    })
                    .map_err(failed)?,
                EntryKind::File(Content::Segment(id)) => {
                    let large = self.large_file.as_ref();
                    let large = large.filter(|segment| segment.record().id == *id);
                    let large = large.filter(|segment| segment.len() == entry.size);
                    let Some(large) = large else {
                        let what = "the data of a large file is not in the segment after its run";
                        return Err(RestoreError::Malformed { what });
                    };
                    let from = large.backend().cache.data_path(*id);
                    tree.take(path, attributes(entry), (&from, taking))
                        .map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    fn copy(&self, offset: u64, size: u64, to: &mut impl io::Write) -> io::Result<()> {
        let end = offset.saturating_add(size);
        let mut at = offset;
        while at < end {
            let next = end.min(at.saturating_add(PIECE_LEN));
            to.write_all(&self.file.read(at..next)?)?;
            at = next;
        }
        Ok(())
    }
}

fn attributes(entry: &Entry) -> (Permissions, i64) {
    let permissions = if entry.mode & 0o111 == 0 {
        Permissions::Ordinary
    } else {
        Permissions::Executable
    };
    (permissions, entry.mtime)
}
