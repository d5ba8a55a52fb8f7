//! The modification times of work-tree files, derived from the previous snapshot.
//!
//! Programs such as `make` take a file as unchanged if its time is unchanged. So a path gets a
//! later time if its bytes have changed, and only then. The id of the git blob doesn't tell that:
//! attributes can change the bytes of a file whose git blob stays.
//!
//! The files are asked for in the order of the index, so one pass over the index parts of the
//! previous snapshot is enough.

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
use super::fixed_times;
use super::index_parts::IndexParts;
use super::input::BuildInput;
use super::tree::{TreeEntry, TreeEntryKind, TreeList};
use crate::base::seconds_since_epoch;
use crate::store::wait;

/// How far the time of new files lies in the past, in seconds.
const INDEX_AHEAD: i64 = 2;

/// The bytes of a file in the new snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) enum CheckedOutBytes<'a> {
    /// The bytes of this open file, which has this length.
    Small(&'a File, u64),
    /// A large file, whose bytes are this segment.
    Large(SegmentId),
    /// A symbolic link, whose target is the git blob, or a submodule, which has no bytes.
    AsStored,
}

/// The source of the times of a new snapshot's files. They must be asked for in index order.
pub(super) struct FileTimes<'a> {
    input: &'a BuildInput<'a>,
    list: &'a TreeList,
    /// The index parts of the previous runs that the new snapshot doesn't have.
    parts: IndexParts<'a>,
    run: Option<PreviousRun<'a>>,
    now: i64,
}

/// A run of the previous snapshot.
struct PreviousRun<'a> {
    reuse: &'a ReusableRun,
    /// The files that are still to come, in reverse order of their paths: the next one is last.
    entries: Vec<PreviousFile>,
    /// Whether the attributes are unchanged, so that an unchanged git blob has unchanged bytes.
    has_same_attributes: bool,
    /// The bytes of the run's small files, once they have been read.
    contents: Option<HashMap<GitPath, Vec<u8>>>,
}

/// A file of the previous snapshot.
struct PreviousFile {
    entry: TreeEntry,
    mtime: i64,
}

impl<'a> FileTimes<'a> {
    /// Starts before the first file. `reused` are the previous runs that the new snapshot keeps.
    pub(super) fn begin(
        input: &'a BuildInput<'a>,
        list: &'a TreeList,
        reused: &[&ReusableRun],
    ) -> Self {
        let reused: HashSet<Digest> = reused.iter().map(|run| run.key).collect();
        let runs: Vec<_> = input
            .previous
            .into_iter()
            .flat_map(|previous| &previous.runs)
            .filter(|run| !reused.contains(&run.key))
            .collect();
        let now = i64::try_from(seconds_since_epoch()).unwrap_or(fixed_times::EARLIEST);
        // The index gets a later time than all files. It must not lie in the future, because tar
        // warns about that.
        let now = now - INDEX_AHEAD;
        Self {
            input,
            list,
            parts: IndexParts::new(input, runs),
            run: None,
            now: now.max(fixed_times::EARLIEST),
        }
    }

    /// Returns the modification time of a file.
    ///
    /// A file whose bytes are unchanged keeps its time. Otherwise the time is the present, but at
    /// least one second after the previous time.
    pub(super) fn of(
        &mut self,
        entry: &TreeEntry,
        bytes: CheckedOutBytes<'_>,
    ) -> Result<i64, PublishError> {
        if entry.kind == TreeEntryKind::Submodule {
            return Ok(fixed_times::EARLIEST);
        }
        let Some(previous) = self.find(&entry.path)? else {
            return Ok(self.now);
        };
        // Earlier versions of the daemon gave all files one fixed time, which is before `EARLIEST`.
        if previous.mtime < fixed_times::EARLIEST {
            return Ok(self.now);
        }
        if self.is_unchanged((&previous, entry), bytes)? {
            return Ok(previous.mtime);
        }
        Ok(self.now.max(previous.mtime + 1))
    }

    /// Returns the previous snapshot's file at `path`, and goes on to the file after it.
    fn find(&mut self, path: &GitPath) -> Result<Option<PreviousFile>, PublishError> {
        loop {
            let Some(run) = &mut self.run else {
                let Some(next) = self.parts.next_run() else {
                    return Ok(None);
                };
                let part = self.parts.read(next)?;
                let id_len = self.input.refs.commit.as_bytes().len();
                self.run = Some(PreviousRun::parse(self.list, next, (&part, id_len))?);
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

    /// Returns whether a file has the bytes of `previous`, which is a file of the present run.
    fn is_unchanged(
        &mut self,
        (previous, entry): (&PreviousFile, &TreeEntry),
        bytes: CheckedOutBytes<'_>,
    ) -> Result<bool, PublishError> {
        let Some(run) = &mut self.run else {
            return Ok(false);
        };
        let (before, now) = (&previous.entry, entry);
        if (before.kind, before.oid) != (now.kind, now.oid) {
            return Ok(false);
        }
        if run.has_same_attributes {
            return Ok(true);
        }
        // Some `.gitattributes` has changed, so only the bytes tell. This is rare, so the contents
        // of a run are read from the store only when they are needed, and once for all its files.
        match bytes {
            CheckedOutBytes::AsStored => Ok(true),
            CheckedOutBytes::Large(segment) => {
                let large_file = run.reuse.large_file.as_ref();
                Ok(large_file.is_some_and(|file| file.segment.id == segment))
            }
            CheckedOutBytes::Small(file, len) => {
                let mut content = vec![0; usize::try_from(len).unwrap_or(0)];
                let path = OsStr::from_bytes(now.path.as_bytes());
                file.read_exact_at(&mut content, 0)
                    .map_err(PublishError::at(path.as_ref()))?;
                let contents = match &run.contents {
                    Some(contents) => contents,
                    None => run.contents.insert(small_files(self.input, run.reuse)?),
                };
                Ok(contents.get(&now.path) == Some(&content))
            }
        }
    }
}

impl<'a> PreviousRun<'a> {
    fn parse(
        list: &TreeList,
        reuse: &'a ReusableRun,
        (part, id_len): (&[u8], usize),
    ) -> Result<Self, PublishError> {
        let entries = index_part_entries(part, id_len)?;
        let mut entries = entries
            .iter()
            .map(PreviousFile::of)
            .collect::<Result<Vec<_>, _>>()?;
        // The key covers entries and attributes. It is computed here with the new attributes. So it
        // equals the stored key only if the attributes didn't change.
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

impl PreviousFile {
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
    input: &BuildInput<'_>,
    run: &ReusableRun,
) -> Result<HashMap<GitPath, Vec<u8>>, PublishError> {
    let mut content = Vec::new();
    let file = &run.work_tree;
    let to = (file.content_len, &mut content);
    let table = wait(input.store.copy_content(input.repo, file, to))?;
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
