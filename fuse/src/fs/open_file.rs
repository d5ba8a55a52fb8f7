//! [`OpenFile`]: an open file.

use std::ops::Range;
use std::sync::Arc;

use super::FsError;
use crate::segment::Segment;
use crate::traffic::Purpose;
use crate::view::WorkTreeFile;

/// An open file. Its bytes stay the same when a newer snapshot is published.
#[derive(Clone, Debug)]
pub(crate) enum OpenFile {
    /// A file whose bytes are in memory.
    Bytes(Arc<[u8]>),
    /// A file that is a whole segment.
    Segment(Arc<Segment>),
    /// A file of the work tree that shares a segment with others.
    WorkTree(Arc<WorkTreeFile>),
}

impl OpenFile {
    /// Returns the segment of a file that is a whole segment, or `None` for other files.
    pub(crate) fn segment(&self) -> Option<&Arc<Segment>> {
        match self {
            Self::Segment(segment) => Some(segment),
            Self::Bytes(_) | Self::WorkTree(_) => None,
        }
    }

    pub(super) async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, FsError> {
        Ok(match self {
            Self::Bytes(bytes) => {
                let at = |offset: u64| {
                    usize::try_from(offset)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len())
                };
                bytes[at(range.start)..at(range.end)].to_vec()
            }
            Self::Segment(segment) => segment.read(range, Purpose::Demand).await?,
            Self::WorkTree(file) => file.read(range).await?,
        })
    }
}
