//! The segments of a first snapshot while it is built, for those who can't wait for its end.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use cachewfs_format::{ArchiveKind, SegmentRef};
use tokio::sync::watch;

/// A finished segment, which is moved to the store later.
#[derive(Clone, Debug)]
pub(crate) struct FedSegment {
    pub(crate) segment: SegmentRef,
    file: PathBuf,
}

impl FedSegment {
    /// Fails if it has been moved to the store, or the build has failed.
    pub(crate) fn open(&self) -> std::io::Result<File> {
        File::open(&self.file)
    }
}

/// The first segments of each archive, in order; empty while none is built.
pub(crate) type FedSegments = BTreeMap<ArchiveKind, Vec<FedSegment>>;

/// Where a build puts the segments that it places.
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

    /// Ends a build, whose segments are in the store or gone.
    pub(super) fn clear(&self) {
        self.fed.send_if_modified(|fed| {
            let had_some = !fed.is_empty();
            fed.clear();
            had_some
        });
    }
}
