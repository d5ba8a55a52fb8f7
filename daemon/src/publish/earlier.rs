//! The files of the snapshot that a publish builds on: what time each had, and whether its bytes
//! have changed since.
//!
//! Programs such as `make` believe that a file is unchanged if its time is. So a path gets a later
//! time when its bytes change, and only then: attributes can change the bytes of a file whose git
//! blob stays.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;

use cachewfs_format::{
    Content, Digest, EntryKind, GitPath, IndexEntry, ObjectId, ReusableRun, SegmentId,
    index_part_entries,
};

use super::PublishError;
use super::build::Snapshot;
use super::index_parts::IndexParts;
use super::times;
use super::tree::{TreeEntry, TreeEntryKind, TreeList};
use crate::clock::seconds_since_epoch;

/// New files have the time that was so many seconds ago.
const INDEX_AHEAD: i64 = 2;

/// The bytes of a file that is checked out.
#[derive(Clone, Copy, Debug)]
pub(super) enum CheckedOut<'a> {
    /// The bytes of this file, which has this length.
    Small(&'a File, u64),
    /// The bytes of a large file, which are this segment.
    Large(SegmentId),
    /// The bytes of the git blob, which is a symbolic link, or no bytes.
    AsStored,
}

/// Gives times to the files of a new snapshot, which are asked for in the order of the index.
pub(super) struct Times<'a> {
    of: &'a Snapshot<'a>,
    list: &'a TreeList,
    /// The parts of the runs of the earlier snapshot that the new one doesn't have.
    parts: IndexParts<'a>,
    run: Option<EarlierRun<'a>>,
    now: i64,
}

/// A run of the earlier snapshot.
struct EarlierRun<'a> {
    reuse: &'a ReusableRun,
    /// Sorted by path, the next one last.
    entries: Vec<EarlierFile>,
    /// Whether the same attributes were in force, so that the same git blob has the same bytes.
    has_same_attributes: bool,
    /// The bytes of its small files, once they were read.
    contents: Option<HashMap<GitPath, Vec<u8>>>,
}

/// A file of the earlier snapshot.
struct EarlierFile {
    entry: TreeEntry,
    mtime: i64,
}

impl<'a> Times<'a> {
    /// Starts with the first file. `reused` are the runs that the new snapshot has, too.
    pub(super) fn begin(of: &'a Snapshot<'a>, list: &'a TreeList, reused: &[&ReusableRun]) -> Self {
        let reused: HashSet<Digest> = reused.iter().map(|run| run.key).collect();
        let runs: Vec<_> = of
            .previous
            .into_iter()
            .flat_map(|previous| &previous.runs)
            .filter(|run| !reused.contains(&run.key))
            .collect();
        let now = i64::try_from(seconds_since_epoch()).unwrap_or(times::EARLIEST);
        // The index, whose time is later, is not of the future: tar would warn of it.
        let now = now - INDEX_AHEAD;
        Self {
            of,
            list,
            parts: IndexParts::new(of, runs),
            run: None,
            now: now.max(times::EARLIEST),
        }
    }

    /// Returns the modification time of a file: the one that it had, if it has the same bytes at the
    /// same path, else the present, or a second after the one that it had.
    pub(super) fn of(
        &mut self,
        entry: &TreeEntry,
        bytes: CheckedOut<'_>,
    ) -> Result<i64, PublishError> {
        if entry.kind == TreeEntryKind::Submodule {
            return Ok(times::EARLIEST);
        }
        let Some(earlier) = self.find(&entry.path)? else {
            return Ok(self.now);
        };
        // Files of older daemons have no time of their own.
        if earlier.mtime < times::EARLIEST {
            return Ok(self.now);
        }
        if self.is_unchanged((&earlier, entry), bytes)? {
            return Ok(earlier.mtime);
        }
        Ok(self.now.max(earlier.mtime + 1))
    }

    /// Finds the file that was at `path`.
    fn find(&mut self, path: &GitPath) -> Result<Option<EarlierFile>, PublishError> {
        loop {
            let Some(run) = &mut self.run else {
                let Some(next) = self.parts.next_run() else {
                    return Ok(None);
                };
                let part = self.parts.read(next)?;
                let id_len = self.of.refs.commit.as_bytes().len();
                self.run = Some(EarlierRun::parse(self.list, next, (&part, id_len))?);
                continue;
            };
            let Some(next) = run.entries.last() else {
                self.run = None;
                continue;
            };
            match next.entry.path.as_bytes().cmp(path.as_bytes()) {
                std::cmp::Ordering::Less => drop(run.entries.pop()),
                std::cmp::Ordering::Equal => return Ok(run.entries.pop()),
                std::cmp::Ordering::Greater => return Ok(None),
            }
        }
    }

    /// Returns whether a file has the bytes that `earlier`, of the present run, had.
    fn is_unchanged(
        &mut self,
        (earlier, entry): (&EarlierFile, &TreeEntry),
        bytes: CheckedOut<'_>,
    ) -> Result<bool, PublishError> {
        let Some(run) = &mut self.run else {
            return Ok(false);
        };
        let (before, now) = (&earlier.entry, entry);
        if (before.kind, before.oid) != (now.kind, now.oid) {
            return Ok(false);
        }
        if run.has_same_attributes {
            return Ok(true);
        }
        match bytes {
            CheckedOut::AsStored => Ok(true),
            CheckedOut::Large(segment) => {
                let large_file = run.reuse.large_file.as_ref();
                Ok(large_file.is_some_and(|file| file.segment.id == segment))
            }
            CheckedOut::Small(file, len) => {
                let mut content = vec![0; usize::try_from(len).unwrap_or(0)];
                let path = OsStr::from_bytes(now.path.as_bytes());
                file.read_exact_at(&mut content, 0)
                    .map_err(PublishError::at(path.as_ref()))?;
                let contents = match &run.contents {
                    Some(contents) => contents,
                    None => run.contents.insert(small_files(self.of, run.reuse)?),
                };
                Ok(contents.get(&now.path) == Some(&content))
            }
        }
    }
}

impl<'a> EarlierRun<'a> {
    fn parse(
        list: &TreeList,
        reuse: &'a ReusableRun,
        (part, id_len): (&[u8], usize),
    ) -> Result<Self, PublishError> {
        let entries = index_part_entries(part, id_len)?;
        let mut entries = entries
            .iter()
            .map(EarlierFile::of)
            .collect::<Result<Vec<_>, _>>()?;
        let key = list.key(entries.iter().map(|file| &file.entry));
        entries.reverse();
        Ok(Self {
            reuse,
            entries,
            has_same_attributes: key == reuse.key,
            contents: None,
        })
    }
}

impl EarlierFile {
    fn of(entry: &IndexEntry<'_>) -> Result<Self, PublishError> {
        let kind = TreeEntryKind::of_mode(entry.mode);
        Ok(Self {
            entry: TreeEntry {
                kind: kind.ok_or_else(|| PublishError::bad_output(entry.path))?,
                oid: ObjectId::from_bytes(entry.id)?,
                blob_len: 0,
                path: GitPath::parse(entry.path)?,
            },
            mtime: i64::from(entry.mtime),
        })
    }
}

/// Reads the small files of a run.
fn small_files(
    of: &Snapshot<'_>,
    run: &ReusableRun,
) -> Result<HashMap<GitPath, Vec<u8>>, PublishError> {
    let mut content = Vec::new();
    let file = &run.work_tree;
    let table = of
        .store
        .copy_content(of.repo, file, (file.content_len, &mut content))?;
    let mut files = HashMap::new();
    for entry in table.entries() {
        let EntryKind::File(Content::Inline { offset }) = entry.kind else {
            continue;
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(entry.size).unwrap_or(usize::MAX));
        let bytes = content.get(start..end).unwrap_or_default();
        files.insert(entry.path.clone(), bytes.to_vec());
    }
    Ok(files)
}
