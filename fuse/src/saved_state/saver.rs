//! [`Saver`]: writes a state down.

use std::collections::HashMap;
use std::sync::Arc;

use cachewfs_format::RepoName;

use super::state::{ContentState, RepositoryState, SegmentState, State, WorkTreeFileState};
use super::{HandOverError, Text};
use crate::segment::{Segment, SegmentLocation};
use crate::view::{FileContent, WorkTreeFile};

/// Collects the state of the old process.
#[derive(Debug, Default)]
pub(crate) struct Saver {
    pub state: State,
    pub blobs: Vec<Arc<[u8]>>,
    /// The places of blobs and segments by address. The vectors keep them alive, so that no other
    /// value gets the address.
    blob_places: HashMap<usize, usize>,
    segment_places: HashMap<usize, usize>,
    segments: Vec<Arc<Segment>>,
    repository_places: HashMap<RepoName, usize>,
}

impl Saver {
    pub(crate) fn blob(&mut self, bytes: &Arc<[u8]>) -> usize {
        *self
            .blob_places
            .entry(bytes.as_ptr().addr())
            .or_insert_with(|| {
                self.blobs.push(Arc::clone(bytes));
                self.blobs.len() - 1
            })
    }

    pub(crate) fn segment(&mut self, segment: &Arc<Segment>) -> Result<usize, HandOverError> {
        if let Some(&place) = self.segment_places.get(&Arc::as_ptr(segment).addr()) {
            return Ok(place);
        }
        let SegmentLocation { repo, path, offset } = segment.location();
        let record = segment.record().to_bytes();
        let place = self.segments.len();
        self.state.segments.push(SegmentState {
            record: Text(record.map_err(HandOverError::state)?),
            repo,
            path: path.to_string(),
            offset,
        });
        self.segments.push(Arc::clone(segment));
        self.segment_places
            .insert(Arc::as_ptr(segment).addr(), place);
        Ok(place)
    }

    pub(crate) fn content(&mut self, content: &FileContent) -> Result<ContentState, HandOverError> {
        Ok(match content {
            FileContent::Bytes(bytes) => ContentState::Bytes(self.blob(bytes)),
            FileContent::Segment(segment) => ContentState::Segment(self.segment(segment)?),
        })
    }

    pub(crate) fn work_tree_file(
        &mut self,
        file: &WorkTreeFile,
    ) -> Result<WorkTreeFileState, HandOverError> {
        let large_file = file.run.large_file.as_ref();
        let large_file = large_file.map(|segment| self.segment(segment));
        Ok(WorkTreeFileState {
            members: self.segment(&file.run.members)?,
            large_file: large_file.transpose()?,
            path: (*file.path).into(),
            blob: (*file.blob).into(),
            size: file.size,
            is_symlink: file.is_symlink,
            is_executable: file.is_executable,
            mtime: file.mtime,
        })
    }

    /// Adds a repository. All are added before the inodes, which name them.
    pub(crate) fn add_repository(&mut self, repository: RepositoryState) {
        let place = self.state.repositories.len();
        self.repository_places
            .insert(repository.name.clone(), place);
        self.state.repositories.push(repository);
    }

    pub(crate) fn repository(&self, name: &RepoName) -> Option<usize> {
        self.repository_places.get(name).copied()
    }

    /// Returns the segments in the order of their places.
    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }
}
