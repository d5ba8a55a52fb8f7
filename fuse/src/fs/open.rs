//! Opens, reads and releases files.

use std::ops::Range;
use std::sync::Arc;

use super::open_file::OpenFile;
use super::{Fs, FsError, Node};
use crate::ino::Ino;
use crate::view::FileContent;

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
        self.open_files.open(file)
    }

    /// Reads content of an open file with the inode `ino`. `range` is in bytes, and is cut at the
    /// end of the file.
    pub(crate) async fn read(
        &self,
        (ino, handle): (Ino, u64),
        range: Range<u64>,
    ) -> Result<Vec<u8>, FsError> {
        match self.open_files.get(handle) {
            Some(file) => file.read(range).await,
            // A process that was killed opened it. The bytes of an inode never change.
            None => self.read_inode(ino, range).await,
        }
    }

    /// Reads content of a file without a handle. `range` is in bytes, and is cut at the end of the
    /// file.
    pub(crate) async fn read_inode(&self, ino: Ino, range: Range<u64>) -> Result<Vec<u8>, FsError> {
        self.file(ino)?.read(range).await
    }

    /// Closes a file. Returns it, or `None` if the handle isn't known.
    pub(crate) fn release(&self, handle: u64) -> Option<OpenFile> {
        self.open_files.close(handle)
    }
}
