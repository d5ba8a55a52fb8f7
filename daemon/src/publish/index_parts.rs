//! Reading the index parts of the previous snapshot from the store.

use cachewfs_format::ReusableRun;

use super::PublishError;
use super::input::BuildInput;
use crate::store::{read_file, wait};

/// How many parts are fetched from the store at the same time. Each has a few kilobytes, and a
/// bucket takes as long for one as for many.
const PARTS_AT_ONCE: usize = 64;

/// A reader of the index parts of some runs of the previous snapshot, one after the other.
pub(super) struct IndexParts<'a> {
    input: &'a BuildInput<'a>,
    runs: Vec<&'a ReusableRun>,
    /// How many parts have been read.
    read: usize,
}

impl<'a> IndexParts<'a> {
    /// Starts before the part of the first of `runs`.
    pub(super) fn new(input: &'a BuildInput<'a>, runs: Vec<&'a ReusableRun>) -> Self {
        Self {
            input,
            runs,
            read: 0,
        }
    }

    /// Returns the run whose part comes next, or `None` after the last one.
    pub(super) fn next_run(&self) -> Option<&'a ReusableRun> {
        self.runs.get(self.read).copied()
    }

    /// Reads the part of `run`, which must be the next run.
    pub(super) fn read(&mut self, run: &ReusableRun) -> Result<Vec<u8>, PublishError> {
        let (store, repo) = (self.input.store, self.input.repo);
        if self.read.is_multiple_of(PARTS_AT_ONCE) {
            let soon = self.runs.iter().skip(self.read).take(PARTS_AT_ONCE);
            store.fetch_local_soon(repo, soon.map(|run| run.index_part.segment));
        }
        self.read += 1;
        Ok(wait(read_file(store, repo, &run.index_part))?)
    }
}
