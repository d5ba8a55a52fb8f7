//! Opens, reads and releases files.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Fs, Ino, Node};
use crate::error::FsError;
use crate::segment::Segment;
use crate::traffic::Purpose;
use crate::view::{FileContent, WorkTreeFile};

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

/// The open files by handle.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    next: AtomicU64,
    open: Mutex<HashMap<u64, OpenFile>>,
}

impl OpenFiles {
    /// Returns the next handle, and all open files by handle.
    pub(super) fn all(&self) -> (u64, HashMap<u64, OpenFile>) {
        let open = self.open.lock();
        (self.next.load(Ordering::Relaxed), open.clone())
    }

    /// Takes over the open files of another process.
    pub(super) fn restore(&self, next: u64, files: Vec<(u64, OpenFile)>) {
        self.next.store(next, Ordering::Relaxed);
        let mut open = self.open.lock();
        open.extend(files);
    }
}

impl OpenFile {
    /// Returns the segment of a file that is a whole segment, or `None` for other files.
    pub(crate) fn segment(&self) -> Option<&Arc<Segment>> {
        match self {
            Self::Segment(segment) => Some(segment),
            Self::Bytes(_) | Self::WorkTree(_) => None,
        }
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, FsError> {
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

impl Fs {
    /// Returns the file of an inode, without opening it yet.
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
            Node::Names { .. }
            | Node::Unloaded { .. }
            | Node::TreeDirectory { .. }
            | Node::WorkTreeDirectory { .. } => Err(FsError::IsADirectory),
        }
    }

    /// Opens a file. Returns its handle.
    pub(crate) fn open(&self, file: OpenFile) -> u64 {
        if let Some(segment) = file.segment() {
            // With passthrough, this process sees no reads. So the open has to count as a use, or
            // eviction would take the file that is read most.
            segment.note_use();
        }
        let handle = self.open_files.next.fetch_add(1, Ordering::Relaxed);
        self.open_files.open.lock().insert(handle, file);
        handle
    }

    /// Returns the open file of a handle.
    pub(crate) fn opened(&self, handle: u64) -> Result<OpenFile, FsError> {
        let open = self.open_files.open.lock();
        open.get(&handle)
            .cloned()
            .ok_or(FsError::UnknownInode { ino: handle })
    }

    /// Reads content of an open file with the inode `ino`. `range` is in bytes, and is cut at the
    /// end of the file.
    pub(crate) async fn read(
        &self,
        (ino, handle): (Ino, u64),
        range: Range<u64>,
    ) -> Result<Vec<u8>, FsError> {
        match self.opened(handle) {
            Ok(file) => file.read(range).await,
            // A process that was killed opened it. The bytes of an inode never change.
            Err(_) => self.read_inode(ino, range).await,
        }
    }

    /// Reads content of a file without a handle. `range` is in bytes, and is cut at the end of the
    /// file.
    pub(crate) async fn read_inode(&self, ino: Ino, range: Range<u64>) -> Result<Vec<u8>, FsError> {
        self.file(ino)?.read(range).await
    }

    /// Closes a file. Returns it, or `None` if the handle isn't known.
    pub(crate) fn release(&self, handle: u64) -> Option<OpenFile> {
        self.open_files.open.lock().remove(&handle)
    }
}
