//! Finding one file in an index that is too long to be loaded for it.
//!
//! Before git shows a commit it looks for `.mailmap`, and the index of a large tree is tens of MiB. Its
//! parts are sorted and small: where a path would be is found by reading a few of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use cachewfs_format::{IndexEntry, Role, index_part_entries};
use futures_util::future::try_join_all;

use super::LoadError;
use super::work_tree::{Run, WorkTreeNode, runs};
use crate::segment::{ReadError, Segment};
use crate::traffic::Purpose;

/// An index up to this length is loaded whole: that is two requests, in bytes.
const MAX_WHOLE: u64 = 1 << 20;
/// So many parts are read at the same time: of 2,600, four times as many find the one.
const PROBES: usize = 7;

/// The parts of an index, in order, each with its run of the work tree.
#[derive(Debug)]
pub(super) struct IndexSearch {
    parts: Vec<(Arc<Segment>, Arc<Run>)>,
    id_len: usize,
}

/// What is at a path.
#[derive(Debug)]
pub(super) enum Hit {
    File(WorkTreeNode),
    Absent,
    /// Something with more to it, such as a directory.
    Other,
}

/// What was read of the parts.
type PartContents = BTreeMap<usize, Vec<u8>>;

impl IndexSearch {
    /// `None` if the index is as well loaded whole.
    pub(super) fn of(segments: &[Arc<Segment>], id_len: usize) -> Option<Self> {
        let is_part = |segment: &&Arc<Segment>| segment.record().role == Role::IndexPart;
        let parts: Vec<_> = segments.iter().filter(is_part).cloned().collect();
        let runs = runs(segments);
        let len: u64 = parts.iter().map(|part| part.len()).sum();
        (len > MAX_WHOLE && parts.len() == runs.len()).then(|| Self {
            parts: parts.into_iter().zip(runs).collect(),
            id_len,
        })
    }

    /// What is at `path`.
    pub(super) async fn find(&self, path: &[u8], purpose: Purpose) -> Result<Hit, LoadError> {
        let mut contents = PartContents::new();
        let at = self.last_from(path, (&mut contents, purpose)).await?;
        if let Some(entry) = self
            .entries(&contents, at)?
            .find(|entry| entry.path == path)
        {
            let run = self.parts.get(at).map(|(_, run)| run);
            return Ok(match run.map(|run| WorkTreeNode::of_entry(&entry, run)) {
                Some(file @ WorkTreeNode::File(_)) => Hit::File(file),
                Some(WorkTreeNode::Directory) | None => Hit::Other,
            });
        }
        let below = [path, b"/"].concat();
        let at = self.last_from(&below, (&mut contents, purpose)).await?;
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

    /// The last part whose first path is `path` or before it; else the first part.
    async fn last_from(
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

    /// Reads those of `numbers` that are parts and were not read yet.
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
