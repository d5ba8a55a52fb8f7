//! Opens files for the kernel, and decides whether the kernel reads them itself (passthrough).

use std::fs::File;
use std::io;

use fuser::BackingId;
use tracing::{debug, warn};

use super::Fs;
use super::open_file::OpenFile;
use crate::holder::OpenSegment;
use crate::segment::{Backing, IoMode};

/// The reply to an `open`, through which the kernel learns of cache files.
pub(crate) trait OpenReply {
    /// Makes the kernel open a cache file.
    fn register(&self, file: &File) -> io::Result<BackingId>;

    /// Attaches the id of a cache file that the kernel has open already.
    fn attach(&self, id: u32) -> BackingId;

    /// Tells the kernel the handle of the file, and the cache file that it reads itself, if any.
    fn opened(self, handle: u64, backing: Option<&BackingId>);
}

impl Fs {
    /// Opens a file, and answers the kernel how it reads it.
    pub(crate) fn open_for_kernel(&self, file: OpenFile, reply: impl OpenReply) {
        let Some(segment) = file.segment().cloned() else {
            return reply.opened(self.open(file), None);
        };
        // The kernel reads an inode in one mode at a time, and fails an `open` in the other mode
        // with EIO. The lock is held from the choice of the mode until the open is counted, so
        // that concurrent opens of a segment agree.
        let mut opens = segment.opens.lock();
        // The kernel would read holes of an incomplete file as zeros: passthrough needs all chunks.
        let free_choice = if segment.is_complete_on_disk() {
            IoMode::Passthrough
        } else {
            IoMode::Cached
        };
        let mode = opens.required_mode().unwrap_or(free_choice);
        let backing = match (mode, opens.backing.take()) {
            (IoMode::Cached, _) => None,
            (IoMode::Passthrough, Some(Backing::Attached(backing))) => Some(backing),
            (IoMode::Passthrough, Some(Backing::Detached(id))) => Some(reply.attach(id)),
            (IoMode::Passthrough, None) => segment
                .opened_file()
                .ok_or_else(|| io::Error::other("the cache files are not open"))
                .and_then(|file| reply.register(file.data()))
                // The mode falls back to cached, also for all opens until the last one ends.
                .inspect_err(|error| self.note_refused_passthrough(error))
                .ok(),
        };
        opens.count += 1;
        let handle = self.open(file);
        let id = backing.map(BackingId::into_raw);
        if let Some(journal) = &self.journal {
            journal.note(&OpenSegment {
                handle,
                segment: segment.record().id,
                backing: id,
            });
        }
        let backing = id.map(|id| reply.attach(id));
        reply.opened(handle, backing.as_ref());
        opens.backing = backing.map(Backing::Attached);
    }

    /// Closes a file. Returns the id of a cache file that the kernel has open for nothing: the next
    /// reply to an `open` must close it.
    pub(crate) fn release_for_kernel(&self, handle: u64) -> Option<u32> {
        let file = self.release(handle)?;
        let mut opens = file.segment()?.opens.lock();
        // First the journal: no later process may use an id that is closed.
        if let Some(journal) = &self.journal {
            journal.forget(handle);
        }
        opens.release()
    }

    /// Logs that the kernel refuses passthrough, as a warning the first time: it mostly refuses it
    /// always, for example if the cache is on a filesystem that is stacked itself.
    fn note_refused_passthrough(&self, error: &io::Error) {
        if self
            .repositories
            .passthrough
            .note_refusal(error.to_string())
        {
            warn!(
                %error,
                "Can't use passthrough, so this process answers reads of complete files too: {error}"
            );
        } else {
            debug!(%error, "Can't use passthrough for a cache file");
        }
    }
}
