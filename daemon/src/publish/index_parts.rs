//! Reading parts of an index that was published before.

use cachewfs_format::ReusableRun;

use super::PublishError;
use super::build::Snapshot;
use crate::store::read_file;

/// The number of parts that are asked for at once: each is a few kilobytes, and a bucket takes as long
/// for one as for many.
const PARTS_AT_ONCE: usize = 64;

/// Reads the index parts of runs of the previous snapshot, one after the other.
pub(super) struct IndexParts<'a> {
    of: &'a Snapshot<'a>,
    runs: Vec<&'a ReusableRun>,
    /// Number of parts that were read.
    read: usize,
}

impl<'a> IndexParts<'a> {
    /// Starts with the first of `runs`.
    pub(super) fn new(of: &'a Snapshot<'a>, runs: Vec<&'a ReusableRun>) -> Self {
        Self { of, runs, read: 0 }
    }

    /// Returns the run whose part is read next.
    pub(super) fn next_run(&self) -> Option<&'a ReusableRun> {
        self.runs.get(self.read).copied()
    }

    /// Reads the part of `run`, which is the next one.
    pub(super) fn read(&mut self, run: &ReusableRun) -> Result<Vec<u8>, PublishError> {
        let (store, repo) = (self.of.store, self.of.repo);
        if self.read.is_multiple_of(PARTS_AT_ONCE) {
            let soon = self.runs.iter().skip(self.read).take(PARTS_AT_ONCE);
            store.fetch_local_soon(repo, soon.map(|run| run.index_part.segment));
        }
        self.read += 1;
        Ok(read_file(store, repo, &run.index_part)?)
    }
}
