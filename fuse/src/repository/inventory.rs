//! Checks and drops what the cache has of a repository.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use cachewfs_format::{SegmentId, SnapshotPart};

use super::hydrate::segments_of;
use super::{Repositories, Repository};
use crate::report::DamagedFileReport;
use crate::segment::Segment;

/// Why the cached bytes of a repository stay.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForgetError {
    /// A program has files open that the cache has. The bytes would stay on disk until it closes
    /// them.
    #[error("a program uses {files} of its files")]
    InUse {
        /// The number of packs and large files that are open.
        files: usize,
    },
    /// The disk of the cache fails.
    #[error("can't change the cache")]
    Cache(#[from] io::Error),
}

/// The counts of a check.
#[derive(Debug, Default)]
pub(crate) struct CheckedBytes {
    /// The cached content.
    pub(crate) checked_bytes: u64,
    /// The files of the snapshot whose cached bytes were wrong.
    pub(crate) damaged: Vec<DamagedFileReport>,
}

impl Repositories {
    /// Drops the cached bytes of the snapshot that `repository` shows, and what the next mount
    /// would show of it without a daemon. Returns how many bytes of disk that freed.
    ///
    /// Bytes that other repositories of this mount show, and pinned ones, stay. Blocks on the disk.
    pub(crate) fn forget(&self, repository: &Repository) -> Result<u64, ForgetError> {
        let own = segments_of(&repository.view().generation, SnapshotPart::All);
        let is_open = |segment: &&Arc<Segment>| segment.opens.lock().count > 0;
        let files = own.iter().filter(is_open).count();
        if files > 0 {
            return Err(ForgetError::InUse { files });
        }
        let mut others = HashSet::new();
        for other in self.resolved() {
            if other.name != repository.name {
                let segments = segments_of(&other.view().generation, SnapshotPart::All);
                others.extend(segments.iter().map(|segment| segment.record().id));
            }
        }
        let ids: HashSet<SegmentId> = own.iter().map(|segment| segment.record().id).collect();
        let ids = ids.difference(&others).copied().collect();
        let (dropped, freed_bytes) = self.cache().drop_segments(&ids)?;
        for segment in own {
            if dropped.contains(&segment.record().id) {
                segment.forget_files();
            }
        }
        self.drop_kept(&repository.name);
        Ok(freed_bytes)
    }
}

impl Repository {
    /// Compares each cached chunk with the checksum that was written when the chunk arrived, and
    /// drops those that differ. Blocks on the disk. Calls `on_progress` with the stored bytes done
    /// and their total.
    pub(crate) fn check_cached(&self, on_progress: impl Fn(u64, u64)) -> CheckedBytes {
        let segments = segments_of(&self.view().generation, SnapshotPart::All);
        // A segment may occur several times, for files with equal bytes.
        let mut seen = HashSet::new();
        let lens = segments.iter().map(|segment| segment.cached_bytes());
        let (total, mut done) = (lens.sum(), 0);
        let mut checked = CheckedBytes::default();
        for segment in &segments {
            let cached = segment.cached_bytes();
            if cached > 0 && seen.insert(segment.record().id) {
                let (right_bytes, wrong_bytes) = segment.check_again();
                checked.checked_bytes += right_bytes + wrong_bytes;
                if wrong_bytes > 0 {
                    let file = segment.record().file.as_ref();
                    let path = file.map(|file| String::from_utf8_lossy(file.path.as_bytes()));
                    checked.damaged.push(DamagedFileReport {
                        path: path.map_or_else(|| "small files".to_owned(), Into::into),
                        damaged_bytes: wrong_bytes,
                    });
                }
            }
            done += cached;
            on_progress(done, total);
        }
        checked
    }
}
