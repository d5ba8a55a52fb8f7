//! Finds one file in a long index without loading the whole index.
//!
//! Before git shows a commit, it looks for `.mailmap`. The index of a large tree has tens of MiB,
//! and loading it for one name would delay the first command. The index is stored in small parts,
//! sorted by path. A search reads several parts in parallel, keeps the interval that must contain
//! the path, and repeats:
//!
//! ```text
//! parts    0 ──────┬──────┬──────┬──────┬──────┬──────┬──────┬────── end
//! probes           1      2      3      4      5      6      7
//! path is between probes 4 and 5:       └──────┘ next interval
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use cachewfs_format::{IndexEntry, Role, index_part_entries};
use futures_util::future::try_join_all;

use super::LoadError;
use super::work_tree::{Run, WorkTreeNode, runs};
use crate::segment::{ReadError, Segment};
use crate::traffic::Purpose;

/// At most this many bytes of index are loaded whole. A load takes two requests, and a search would
/// not be faster.
const MAX_WHOLE: u64 = 1 << 20;
/// At most this many bytes are in each part of an index that is searched. A search parses each part
/// that it reads, so longer ones would make it slower than a load of the whole index. Publishers
/// put up to 1,024 entries in a part, about 100 KiB.
const MAX_PART: u64 = 8 << 20;
/// The number of parts that a search reads in parallel. It divides the interval by eight, so four
/// rounds search 2,600 parts.
const PROBES: usize = 7;

/// The parts of an index in order, each with the run of files that it describes.
#[derive(Debug)]
pub(super) struct IndexSearch {
    parts: Vec<(Arc<Segment>, Arc<Run>)>,
    id_len: usize,
}

/// The result of a search.
#[derive(Debug)]
pub(super) enum Hit {
    File(WorkTreeNode),
    Absent,
    /// The path is a directory or a submodule. The caller loads the whole index for it.
    Other,
}

/// The parts that a search has read, by number.
type PartContents = BTreeMap<usize, Vec<u8>>;

impl IndexSearch {
    /// Returns a search over the index in `segments`, or `None` if the index is to be loaded whole:
    /// it is short, or a part of it is too long.
    pub(super) fn for_long_index(segments: &[Arc<Segment>], id_len: usize) -> Option<Self> {
        let is_part = |segment: &&Arc<Segment>| segment.record().role == Role::IndexPart;
        let parts: Vec<_> = segments.iter().filter(is_part).cloned().collect();
        let runs = runs(segments);
        let len: u64 = parts.iter().map(|part| part.len()).sum();
        let are_short = parts.iter().all(|part| part.len() <= MAX_PART);
        (len > MAX_WHOLE && are_short && parts.len() == runs.len()).then(|| Self {
            parts: parts.into_iter().zip(runs).collect(),
            id_len,
        })
    }

    /// Searches for `path`.
    pub(super) async fn find(&self, path: &[u8], purpose: Purpose) -> Result<Hit, LoadError> {
        let mut contents = PartContents::new();
        let at = self.last_not_after(path, (&mut contents, purpose)).await?;
        if let Some(entry) = self
            .entries(&contents, at)?
            .find(|entry| entry.path == path)
        {
            let run = self.parts.get(at).map(|(_, run)| run);
            return Ok(match run.map(|run| WorkTreeNode::from_entry(&entry, run)) {
                Some(file @ WorkTreeNode::File(_)) => Hit::File(file),
                Some(WorkTreeNode::Directory) | None => Hit::Other,
            });
        }
        // The index has no entries for directories. A directory shows as entries below `path/`,
        // at the end of one part or at the start of the next.
        let below = [path, b"/"].concat();
        let at = self
            .last_not_after(&below, (&mut contents, purpose))
            .await?;
        self.read(&[at + 1], (&mut contents, purpose)).await?;
        for part in [at, at + 1] {
            if self
                .entries(&contents, part)?
                .any(|entry| entry.path.starts_with(&below))
            {
                return Ok(Hit::Other);
            }
        }
        Ok(Hit::Absent)
    }

    /// Returns the last part whose first path is not after `path`, or the first part if there is
    /// none. If the index has `path`, it is in this part.
    async fn last_not_after(
        &self,
        path: &[u8],
        (contents, purpose): (&mut PartContents, Purpose),
    ) -> Result<usize, LoadError> {
        let (mut first, mut end) = (0, self.parts.len());
        while end - first > 1 {
            let step = (end - first).div_ceil(PROBES + 1);
            let probes: Vec<_> = (first..end).step_by(step).skip(1).collect();
            self.read(&probes, (contents, purpose)).await?;
            for probe in probes {
                let entry = self.entries(contents, probe)?.next();
                if entry.is_none_or(|entry| entry.path > path) {
                    end = probe;
                    break;
                }
                first = probe;
            }
        }
        self.read(&[first], (contents, purpose)).await?;
        Ok(first)
    }

    /// Reads the parts in `numbers` that exist and were not read yet, all in parallel.
    async fn read(
        &self,
        numbers: &[usize],
        (contents, purpose): (&mut PartContents, Purpose),
    ) -> Result<(), ReadError> {
        let missing = numbers
            .iter()
            .filter(|number| !contents.contains_key(number));
        let parts = missing.filter_map(|&number| {
            let (part, _) = self.parts.get(number)?;
            Some(async move {
                let content = part.read(0..part.len(), purpose).await?;
                Ok::<_, ReadError>((number, content))
            })
        });
        let parts = try_join_all(parts.collect::<Vec<_>>()).await?;
        contents.extend(parts);
        Ok(())
    }

    /// Returns the entries of part `number`, or none if it was not read.
    fn entries<'a>(
        &self,
        contents: &'a PartContents,
        number: usize,
    ) -> Result<impl Iterator<Item = IndexEntry<'a>> + use<'a>, LoadError> {
        let part = contents.get(&number).map_or(&[][..], Vec::as_slice);
        let entries = index_part_entries(part, self.id_len)?;
        Ok(entries.into_iter())
    }
}
