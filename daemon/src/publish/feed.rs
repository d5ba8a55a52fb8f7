//! The segments of a repository's first snapshot while it is built.
//!
//! Until the first snapshot is published, a client that asks for the archive gets its segments from
//! here, as soon as the build has placed them. The rest comes from the store.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use cachewfs_format::{ArchiveKind, SegmentRef};
use tokio::sync::watch;

/// A finished segment in a temporary file, which the publish moves to the store later.
#[derive(Clone, Debug)]
pub(crate) struct FedSegment {
    pub(crate) segment: SegmentRef,
    file: PathBuf,
}

impl FedSegment {
    /// Opens the temporary file. Fails if the segment has been moved to the store or the build has
    /// failed.
    pub(crate) fn open(&self) -> std::io::Result<File> {
        File::open(&self.file)
    }
}

/// The segments of each archive that have been placed so far, in order. Empty if nothing is built.
pub(crate) type FedSegments = BTreeMap<ArchiveKind, Vec<FedSegment>>;

/// The feed of one repository. The build pushes segments into it, and clients subscribe to it.
#[derive(Debug, Default)]
pub(crate) struct BuildFeed {
    fed: watch::Sender<FedSegments>,
}

impl BuildFeed {
    pub(crate) fn subscribe(&self) -> watch::Receiver<FedSegments> {
        self.fed.subscribe()
    }

    pub(super) fn push(&self, kind: ArchiveKind, segment: SegmentRef, file: PathBuf) {
        let new = FedSegment { segment, file };
        self.fed
            .send_modify(|fed| fed.entry(kind).or_default().push(new));
    }

    /// Removes all segments at the end of a build: they are in the store, or the build has failed.
    pub(super) fn clear(&self) {
        self.fed.send_if_modified(|fed| {
            // Subscribers are woken only if there is a change.
            let had_some = !fed.is_empty();
            fed.clear();
            had_some
        });
    }
}
