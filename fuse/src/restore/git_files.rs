//! Writes the files of the git directory that an archive may decide: packs with their indexes,
//! commit-graphs, and the index of the work tree.
//!
//! HEAD, refs and configuration are the caller's: an archive could contain a configuration that
//! runs programs.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use cachewfs_format::{Role, Toc};

use super::RestoreError;
use super::error::write_error;
use super::tree_writer::{Permissions, Taking, TreeWriter, below};
use crate::segment::Segment;
use crate::traffic::Purpose;
use crate::view::{FileContent, StaticTree, WorkTree};

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
        let attributes = (Permissions::Ordinary, file.mtime);
        match &file.content {
            FileContent::Segment(segment) => {
                let from = segment.backend().cache.data_path(segment.record().id);
                tree.take(path, attributes, (&from, taking))
                    .map_err(failed)?;
            }
            // Of the small files, only the chain of commit-graphs.
            FileContent::Bytes(bytes) if path.starts_with(b"objects/") => tree
                .file(path, attributes, |file| file.write_all(bytes))
                .map_err(failed)?,
            FileContent::Bytes(_) => {}
        }
        if let Some(stem) = path.strip_suffix(b".pack") {
            let path = [stem, b".keep"].concat();
            let failed = write_error(&below(git_dir, &path));
            tree.file(&path, attributes, |file| file.write_all(PACK_KEEP))
                .map_err(failed)?;
        }
    }
    Ok(())
}

/// Writes the index of the work tree. All of its parts are in the cache.
pub(super) async fn write_index(
    toc: &Toc,
    segments: &[Arc<Segment>],
    git_dir: &Path,
) -> Result<(), RestoreError> {
    let index = WorkTree::load(toc, segments, Purpose::Background).await;
    let index = index.map_err(|error| RestoreError::of_load(toc.repo.as_str(), error))?;
    let failed = write_error(&git_dir.join("index"));
    let attributes = (Permissions::Ordinary, index.index_mtime());
    TreeWriter::open(git_dir)
        .and_then(|mut tree| tree.file(b"index", attributes, |file| file.write_all(index.index())))
        .map_err(failed)
}

/// Returns whether a segment of this role is needed for the index.
pub(super) fn is_of_index(role: Role) -> bool {
    role == Role::IndexPart
}
