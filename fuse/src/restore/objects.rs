//! Writes objects only: what a repository lacks that has the objects of an older snapshot.

use std::collections::HashSet;
use std::path::Path;

use futures_util::StreamExt as _;
use tokio::task::spawn_blocking;

use super::download::download;
use super::git_files::write_objects;
use super::plan::plan;
use super::restore::stopped;
use super::tree_writer::below;
use super::{Restore, RestoreError};
use crate::control::protocol::Progress;
use crate::view::{FileContent, StaticFile, StaticTree};

impl Restore {
    /// Writes the packs, indexes and commit-graphs that the git directory `present` lacks into the
    /// git directory `to`, and the names of the commit-graphs.
    ///
    /// After a failure, the cache has all chunks that arrived.
    pub async fn write_missing_objects(
        &self,
        (present, to): (&Path, &Path),
        on_progress: impl Fn(&Progress),
    ) -> Result<(), RestoreError> {
        let generation = self.generation();
        let name = generation.toc.repo.to_string();
        let mut missing = StaticTree::default();
        let mut ids = HashSet::new();
        for (path, file) in generation.objects.files() {
            if is_present(present, path, file) {
                continue;
            }
            if let FileContent::Segment(segment) = &file.content {
                ids.insert(segment.record().id);
            }
            missing.add_file(path, file.content.clone(), file.mtime);
        }
        let in_order = generation.segments.iter();
        let wanted: Vec<_> = in_order
            .filter(|segment| ids.contains(&segment.record().id))
            .cloned()
            .collect();
        let failed = |error| RestoreError::of_read(&name, error);
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
        let (to, taking) = (to.to_owned(), self.taking());
        let written = spawn_blocking(move || write_objects(&missing, &to, taking)).await;
        written.map_err(stopped)?
    }

    /// Returns the paths of the packs, relative to the git directory.
    pub fn packs(&self) -> Vec<&[u8]> {
        let files = self.generation().objects.files();
        let paths = files.map(|(path, _)| path);
        paths.filter(|path| path.ends_with(b".pack")).collect()
    }
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
