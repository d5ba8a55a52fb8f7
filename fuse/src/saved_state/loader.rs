//! [`Loader`]: finds what a state names, in the new process.

use std::sync::Arc;

use cachewfs_format::TocSegment;

use super::state::{ContentState, SegmentState, WorkTreeFileState};
use super::{HandOverError, Text};
use crate::segment::{Segment, SegmentLocation, Segments};
use crate::view::{FileContent, Run, WorkTreeFile};

/// Finds what the places in a state stand for, in the new process.
#[derive(Debug)]
pub(crate) struct Loader {
    segments: Vec<Arc<Segment>>,
    blobs: Vec<Arc<[u8]>>,
}

impl Loader {
    pub(crate) fn new(
        segments: &[SegmentState],
        blobs: Vec<Arc<[u8]>>,
        known: &Segments,
    ) -> Result<Self, HandOverError> {
        let segments = segments.iter().map(|segment| {
            let record = TocSegment::from_bytes(&segment.record.0).map_err(HandOverError::state)?;
            let location = SegmentLocation {
                repo: segment.repo.clone(),
                path: segment.path.as_str().into(),
                offset: segment.offset,
            };
            Ok(known.intern(&record, location))
        });
        Ok(Self {
            segments: segments.collect::<Result<_, HandOverError>>()?,
            blobs,
        })
    }

    /// Returns the segments in the order of their places.
    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    pub(crate) fn blob(&self, place: usize) -> Result<&Arc<[u8]>, HandOverError> {
        let blob = self.blobs.get(place);
        blob.ok_or_else(|| HandOverError::state("bytes that were not sent"))
    }

    pub(crate) fn segment(&self, place: usize) -> Result<&Arc<Segment>, HandOverError> {
        let segment = self.segments.get(place);
        segment.ok_or_else(|| HandOverError::state("a segment that was not sent"))
    }

    pub(crate) fn content(&self, content: &ContentState) -> Result<FileContent, HandOverError> {
        Ok(match *content {
            ContentState::Bytes(place) => FileContent::Bytes(Arc::clone(self.blob(place)?)),
            ContentState::Segment(place) => FileContent::Segment(Arc::clone(self.segment(place)?)),
        })
    }

    pub(crate) fn work_tree_file(
        &self,
        state: WorkTreeFileState,
    ) -> Result<WorkTreeFile, HandOverError> {
        let large_file = state.large_file.map(|place| self.segment(place).cloned());
        let run = Run {
            members: Arc::clone(self.segment(state.members)?),
            large_file: large_file.transpose()?,
        };
        let (Text(path), Text(blob)) = (state.path, state.blob);
        Ok(WorkTreeFile {
            run: Arc::new(run),
            path: path.into(),
            blob: blob.into(),
            size: state.size,
            is_symlink: state.is_symlink,
            is_executable: state.is_executable,
            mtime: state.mtime,
        })
    }
}
