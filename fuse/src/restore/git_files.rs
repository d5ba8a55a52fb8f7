//! Writes the files of the git directory that an archive may decide: packs with their indexes, and
//! commit-graphs.
//!
//! HEAD, refs and configuration are the caller's: an archive could contain a configuration that
//! runs programs. The index and the files are git's.

use std::io::Write as _;
use std::path::Path;

use super::RestoreError;
use super::error::write_error;
use super::tree_writer::{Taking, TreeWriter, below};
use crate::view::{FileContent, StaticTree};

/// The content of a `.keep` file. Git only checks whether such a file exists (`git-repack(1)`).
///
/// Git 2.54 and later start maintenance after a fetch. Without this file, git would roll up all
/// packs of the archive into one, because their sizes are no geometric progression.
pub const PACK_KEEP: &[u8] =
    b"cachewfs published this pack. Delete this file if git is to repack it.\n";

/// Writes packs, their indexes and the commit-graphs in `objects` below `git_dir`. All of their
/// bytes are in the cache.
pub(super) fn write_objects(
    objects: &StaticTree,
    git_dir: &Path,
    taking: Taking,
) -> Result<(), RestoreError> {
    let mut tree = TreeWriter::open(git_dir).map_err(write_error(git_dir))?;
    for (path, file) in objects.files() {
        let failed = write_error(&below(git_dir, path));
        match &file.content {
            FileContent::Segment(segment) => {
                let from = segment.backend().cache.data_path(segment.record().id);
                tree.take(path, file.mtime, (&from, taking))
                    .map_err(failed)?;
            }
            // Of the small files, only the chain of commit-graphs.
            FileContent::Bytes(bytes) if path.starts_with(b"objects/") => tree
                .file(path, file.mtime, |file| file.write_all(bytes))
                .map_err(failed)?,
            FileContent::Bytes(_) => {}
        }
        if let Some(stem) = path.strip_suffix(b".pack") {
            let path = [stem, b".keep"].concat();
            let failed = write_error(&below(git_dir, &path));
            tree.file(&path, file.mtime, |file| file.write_all(PACK_KEEP))
                .map_err(failed)?;
        }
    }
    Ok(())
}
