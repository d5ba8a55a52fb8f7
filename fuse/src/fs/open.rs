//! Open files.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Fs, Ino, Node};
use crate::error::FsError;
use crate::segment::Segment;
use crate::traffic::Purpose;
use crate::view::{FileContent, WorkTreeFile};

/// A file that is open: its bytes stay what they were, whatever is published meanwhile.
#[derive(Clone, Debug)]
pub(crate) enum OpenFile {
    /// Its bytes are in memory.
    Bytes(Arc<[u8]>),
    /// It is a segment.
    Segment(Arc<Segment>),
    /// It is a file of the work tree, in a run with others.
    WorkTree(Arc<WorkTreeFile>),
}

/// The files that are open.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    next: AtomicU64,
    open: Mutex<HashMap<u64, OpenFile>>,
}

impl OpenFile {
    /// The segment that the file is, if it is one.
    pub(crate) fn segment(&self) -> Option<&Arc<Segment>> {
        match self {
            Self::Segment(segment) => Some(segment),
            Self::Bytes(_) | Self::WorkTree(_) => None,
        }
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, FsError> {
        Ok(match self {
            Self::Bytes(bytes) => {
                let at = |place: u64| {
                    usize::try_from(place)
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

impl Fs {
    /// What is opened, without opening it yet.
    pub(crate) fn file(&self, ino: Ino) -> Result<OpenFile, FsError> {
        match self.inodes.get(ino)? {
            Node::TreeFile { file, .. } => Ok(match file.content {
                FileContent::Bytes(bytes) => OpenFile::Bytes(bytes),
                FileContent::Segment(segment) => OpenFile::Segment(segment),
            }),
            Node::WorkTreeFile { file, .. } => Ok(match file.own_segment() {
                Some(segment) => OpenFile::Segment(Arc::clone(segment)),
                None => OpenFile::WorkTree(Arc::new(file)),
            }),
            Node::Names { .. } | Node::TreeDirectory { .. } | Node::WorkTreeDirectory { .. } => {
                Err(FsError::IsADirectory)
            }
        }
    }

    /// Opens a file; gives its handle.
    pub(crate) fn open(&self, file: OpenFile) -> u64 {
        if let Some(segment) = file.segment() {
            // The kernel reads a complete file without us.
            segment.note_use();
        }
        let handle = self.open_files.next.fetch_add(1, Ordering::Relaxed);
        self.open_files
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(handle, file);
        handle
    }

    /// An open file.
    pub(crate) fn opened(&self, handle: u64) -> Result<OpenFile, FsError> {
        let open = self
            .open_files
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.get(&handle)
            .cloned()
            .ok_or(FsError::UnknownInode { ino: handle })
    }

    /// Reads content; `range` is in bytes, and cut at the end of the file.
    pub(crate) async fn read(&self, handle: u64, range: Range<u64>) -> Result<Vec<u8>, FsError> {
        self.opened(handle)?.read(range).await
    }

    /// Reads content of a file that nobody opened; `range` is in bytes, and cut at the end.
    pub(crate) async fn read_inode(&self, ino: Ino, range: Range<u64>) -> Result<Vec<u8>, FsError> {
        self.file(ino)?.read(range).await
    }

    /// Closes a file; gives it back.
    pub(crate) fn release(&self, handle: u64) -> Option<OpenFile> {
        self.open_files
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&handle)
    }
}
