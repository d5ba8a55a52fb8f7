//! Fetches and writes objects alone: those of HEAD, or all that a repository lacks.

use std::collections::HashSet;
use std::path::Path;

use cachewfs_format::{ObjectId, PackKind, Role};
use futures_util::StreamExt as _;
use tokio::task::spawn_blocking;

use super::download::download;
use super::git_files::write_objects;
use super::plan::plan;
use super::restore::stopped;
use super::tree_writer::below;
use super::{Restore, RestoreError};
use crate::control::protocol::Progress;
use crate::first_look;
use crate::view::{FileContent, StaticFile, StaticTree};

/// Which objects of a snapshot to restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectsPart {
    /// The git trees and git blobs of HEAD, in the tip pack and the increments. They may lack a
    /// git blob that a newer commit has taken from the history again.
    OfHead,
    /// All of them, and the commit-graphs.
    All,
}

impl Restore {
    /// Fetches the objects that the git directory `present` lacks, and keeps them in the cache.
    ///
    /// After a failure, the cache has all chunks that arrived.
    pub async fn fetch_missing_objects(
        &self,
        part: ObjectsPart,
        present: &Path,
        on_progress: impl Fn(&Progress),
    ) -> Result<(), RestoreError> {
        let missing = self.missing(part, present);
        self.fetch(&missing, on_progress).await
    }

    /// Writes the packs, indexes and commit-graphs that the git directory `present` lacks into the
    /// git directory `to`, and the names of the commit-graphs. Fetches them first.
    pub async fn write_missing_objects(
        &self,
        part: ObjectsPart,
        (present, to): (&Path, &Path),
        on_progress: impl Fn(&Progress),
    ) -> Result<(), RestoreError> {
        let missing = self.missing(part, present);
        self.fetch(&missing, on_progress).await?;
        let (to, taking) = (to.to_owned(), self.taking());
        let written = spawn_blocking(move || write_objects(&missing, &to, taking)).await;
        written.map_err(stopped)?
    }

    /// Returns the files of the snapshot that `present` lacks.
    fn missing(&self, part: ObjectsPart, present: &Path) -> StaticTree {
        let generation = self.generation();
        let of_head: HashSet<&[u8]> = generation
            .segments
            .iter()
            .map(|segment| segment.record())
            .filter(|record| {
                let (tip, increment) = (PackKind::Tip, PackKind::Increment);
                record.role == Role::Pack(tip) || record.role == Role::Pack(increment)
            })
            .filter_map(|record| record.file.as_ref())
            .map(|file| stem(file.path.as_bytes()))
            .collect();
        let mut missing = StaticTree::default();
        for (path, file) in generation.objects.files() {
            let is_wanted = part == ObjectsPart::All || of_head.contains(stem(path));
            if is_wanted && !is_present(present, path, file) {
                missing.add_file(path, file.content.clone(), file.mtime);
            }
        }
        missing
    }

    async fn fetch(
        &self,
        files: &StaticTree,
        on_progress: impl Fn(&Progress),
    ) -> Result<(), RestoreError> {
        let generation = self.generation();
        let ids: HashSet<_> = files
            .files()
            .filter_map(|(_, file)| match &file.content {
                FileContent::Segment(segment) => Some(segment.record().id),
                FileContent::Bytes(_) => None,
            })
            .collect();
        let in_order = generation.segments.iter();
        let wanted: Vec<_> = in_order
            .filter(|segment| ids.contains(&segment.record().id))
            .cloned()
            .collect();
        let failed = |error| RestoreError::of_read(generation.toc.repo.as_str(), error);
        let steps = plan(&wanted).await.map_err(failed)?;
        let mut progress = Progress {
            step: "restoring".to_owned(),
            done_bytes: 0,
            total_bytes: steps.iter().map(|step| step.bytes).sum(),
        };
        let mut fetched = download(steps, self.tasks());
        while let Some(step) = fetched.next().await {
            progress.done_bytes += step.map_err(failed)?.bytes;
            on_progress(&progress);
        }
        Ok(())
    }

    /// Returns the commit of HEAD.
    pub fn commit(&self) -> ObjectId {
        self.generation().toc.commit
    }

    /// Reads the commit of HEAD, of which it fetches little more. Returns `None` if it is stored in
    /// an unusual way. The caller verifies the content.
    pub async fn read_commit(&self) -> Result<Option<Vec<u8>>, RestoreError> {
        let (commit, generation) = (self.commit(), self.generation());
        let read = first_look::read_commit(commit, &generation.segments).await;
        read.map_err(|error| RestoreError::of_read(generation.toc.repo.as_str(), error))
    }

    /// Returns the paths of the packs, relative to the git directory.
    pub fn packs(&self) -> Vec<&[u8]> {
        let files = self.generation().objects.files();
        let paths = files.map(|(path, _)| path);
        paths.filter(|path| path.ends_with(b".pack")).collect()
    }
}

/// Returns a path without its extension.
fn stem(path: &[u8]) -> &[u8] {
    let dot = path.iter().rposition(|&byte| byte == b'.');
    dot.map_or(path, |dot| &path[..dot])
}

/// Returns whether a file of the archive is in `git_dir` already. git names packs and commit-graphs
/// after their content. So a file with the name and the length is the file.
fn is_present(git_dir: &Path, path: &[u8], file: &StaticFile) -> bool {
    let FileContent::Segment(segment) = &file.content else {
        return false;
    };
    let found = below(git_dir, path).symlink_metadata();
    found.is_ok_and(|found| found.is_file() && found.len() == segment.len())
}
