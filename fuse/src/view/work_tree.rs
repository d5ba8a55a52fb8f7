//! The work tree of the published commit.
//!
//! Names and attributes come from the git index in the archive, which has one part for each *run*
//! of files. Bytes come from the run's segment, whose table says where each file is. If a run has a
//! large file, a second segment follows, which is that file.

use std::sync::Arc;

use cachewfs_format::{
    Content, EntryKind, Error as FormatError, GitIndex, GitIndexWriter, IndexEntry, RepoName, Role,
    SegmentId, SegmentTable, Toc, inode_of, work_tree_inode,
};

use super::LoadError;
use crate::ino::Ino;
use crate::parse::parse;
use crate::segment::{ReadError, Segment, fetch_whole};
use crate::traffic::Purpose;

/// The bits of a git mode that give the type of an entry.
const TYPE_MASK: u32 = 0o170_000;
const SYMLINK: u32 = 0o120_000;
const SUBMODULE: u32 = 0o160_000;
/// At most this many bytes are in the target of a symbolic link: `PATH_MAX` of Linux without the
/// zero byte at its end.
const MAX_TARGET: usize = 4095;
/// The time of all files in archives of older daemons, which gave files no times of their own.
const UNKNOWN_MTIME: i64 = 315_532_800;

/// The files of the published commit, with the index that git reads.
#[derive(Debug)]
pub(crate) struct WorkTree {
    index: GitIndex,
    /// Each run, with the offset in the index at which its part ends. Sorted by offset.
    runs: Vec<(u32, Arc<Run>)>,
    /// The time of the index in seconds since the epoch. It is later than that of any file, so that
    /// git doesn't take files for racily clean and read them again.
    index_mtime: i64,
}

/// A run of neighbouring files that share a segment.
#[derive(Debug)]
pub(crate) struct Run {
    pub members: Arc<Segment>,
    pub large_file: Option<Arc<Segment>>,
}

impl Run {
    /// Returns the id of the run's segment if files with this time need it in their identity,
    /// otherwise `None`.
    ///
    /// A file is identified by its blob, mode and time. In an archive of an older daemon all times
    /// are equal, and the shown bytes may differ for one blob. There the run's segment counts, too.
    fn identity(&self, mtime: i64) -> Option<SegmentId> {
        (mtime == UNKNOWN_MTIME).then(|| self.members.record().id)
    }
}

/// A directory or a file in the work tree.
#[derive(Clone, Debug)]
pub(crate) enum WorkTreeNode {
    /// A directory. A submodule is shown as an empty directory.
    Directory,
    /// A regular file or a symbolic link.
    File(WorkTreeFile),
}

/// A regular file or a symbolic link. It stays readable when its snapshot is no longer shown.
#[derive(Clone, Debug)]
pub(crate) struct WorkTreeFile {
    pub run: Arc<Run>,
    pub path: Box<[u8]>,
    /// The raw id of the git blob.
    pub blob: Box<[u8]>,
    /// Length in bytes.
    pub size: u64,
    pub is_symlink: bool,
    pub is_executable: bool,
    /// Modification time in seconds since the epoch.
    pub mtime: i64,
}

impl WorkTreeNode {
    /// Returns the node that an index entry describes. `run` is the run of the entry's part.
    pub(super) fn from_entry(entry: &IndexEntry<'_>, run: &Arc<Run>) -> Self {
        if entry.mode & TYPE_MASK == SUBMODULE {
            return Self::Directory;
        }
        let is_large = |segment: &&Arc<Segment>| {
            segment
                .record()
                .file
                .as_ref()
                .is_some_and(|file| file.path.as_bytes() == entry.path)
        };
        // An index entry has only 32 bits for the size, so that of a large file is in the TOC.
        let size = run
            .large_file
            .as_ref()
            .filter(is_large)
            .map(|segment| segment.len());
        Self::File(WorkTreeFile {
            run: Arc::clone(run),
            path: entry.path.into(),
            blob: entry.id.into(),
            size: size.unwrap_or_else(|| u64::from(entry.size)),
            is_symlink: entry.mode & TYPE_MASK == SYMLINK,
            is_executable: entry.mode & 0o111 != 0,
            mtime: i64::from(entry.mtime),
        })
    }
}

impl WorkTree {
    /// Returns a work tree without files, for a commit that git can't check out.
    pub(crate) fn empty() -> Self {
        Self {
            index: GitIndexWriter::new(0).finish(false),
            runs: Vec::new(),
            index_mtime: 0,
        }
    }

    /// Loads the index. Fetches no bytes of files.
    ///
    /// Takes over only the entries of the archive's index, after it has checked them. The mount
    /// writes the header, the tree extension and the checksum itself.
    pub(crate) async fn load(
        toc: &Toc,
        segments: &[Arc<Segment>],
        purpose: Purpose,
    ) -> Result<Self, LoadError> {
        let is_part = |segment: &&Arc<Segment>| segment.record().role == Role::IndexPart;
        let parts: Vec<_> = segments.iter().filter(is_part).cloned().collect();
        let runs = runs(segments);
        if runs.len() != parts.len() {
            return Err(bad_index(
                "the number of its parts is not that of the runs of the work tree",
            ));
        }
        fetch_whole(&parts, purpose).await?;
        let id_len = toc.commit.as_bytes().len();
        let mut index = GitIndexWriter::new(id_len);
        let mut runs_by_end = Vec::new();
        for (part, run) in parts.iter().zip(runs) {
            let content = part.read(0..part.len(), purpose).await?;
            let push = move || {
                let end = index.push_part(&content);
                (index, end)
            };
            let end;
            (index, end) = parse(part.len(), push).await;
            runs_by_end.push((end?, run));
        }
        // The records of this TOC, not those of the segments. A shared segment keeps the record of
        // an older snapshot, with other times.
        let file_of = |role| {
            let segment = toc.segments.iter().find(|segment| segment.role == role);
            segment.and_then(|segment| segment.file.as_ref())
        };
        // The publisher omits the cache tree if files of the commit are missing from the index.
        // A cache tree of the remaining files could then name trees that are no objects.
        let has_cache_tree =
            file_of(Role::IndexTrailer).is_some_and(|trailer| trailer.size > id_len as u64);
        let len = parts.iter().map(|part| part.len()).sum();
        let finish = move || index.finish(has_cache_tree);
        Ok(Self {
            index: parse(len, finish).await,
            runs: runs_by_end,
            index_mtime: file_of(Role::IndexHeader).map_or(0, |header| header.mtime),
        })
    }

    /// Returns the bytes of the index file.
    pub(crate) fn index(&self) -> &Arc<[u8]> {
        self.index.bytes()
    }

    /// Returns the modification time of the index in seconds since the epoch.
    pub(crate) fn index_mtime(&self) -> i64 {
        self.index_mtime
    }

    fn entry(&self, number: usize) -> Option<IndexEntry<'_>> {
        self.index.entry(number)
    }

    fn path(&self, number: usize) -> &[u8] {
        self.entry(number).map_or(&[], |entry| entry.path)
    }

    /// Returns the number of the first entry whose path is not before `path`.
    fn first_from(&self, path: &[u8]) -> usize {
        self.index.first_from(path)
    }

    /// Returns the node at `path`, or `None` if there is none.
    pub(crate) fn get(&self, path: &[u8]) -> Option<WorkTreeNode> {
        if path.is_empty() {
            return Some(WorkTreeNode::Directory);
        }
        let number = self.first_from(path);
        if self.path(number) == path {
            return self.node(number);
        }
        let below = [path, b"/"].concat();
        let is_directory = self.path(self.first_from(&below)).starts_with(&below);
        is_directory.then_some(WorkTreeNode::Directory)
    }

    fn node(&self, number: usize) -> Option<WorkTreeNode> {
        let entry = self.entry(number)?;
        Some(WorkTreeNode::from_entry(&entry, self.run(number)?))
    }

    /// Returns the run of the file of entry `number`.
    fn run(&self, number: usize) -> Option<&Arc<Run>> {
        let offset = self.index.offset(number)?;
        let run = self.runs.partition_point(|&(end, _)| end <= offset);
        self.runs.get(run).map(|(_, run)| run)
    }

    /// Returns the names in the directory at `path`, in the order of the index, each with its node.
    pub(crate) fn children(&self, path: &[u8]) -> Vec<(Vec<u8>, WorkTreeNode)> {
        let prefix = if path.is_empty() {
            Vec::new()
        } else {
            [path, b"/"].concat()
        };
        let mut number = self.first_from(&prefix);
        let mut children = Vec::new();
        while let Some(below) = self.path(number).strip_prefix(prefix.as_slice())
            && !below.is_empty()
        {
            if let Some(slash) = below.iter().position(|&byte| byte == b'/') {
                children.push((below[..slash].to_vec(), WorkTreeNode::Directory));
                // Skips the directory: '0' follows '/', so this is the first path not below it.
                // Names such as "a-b" sort between "a" and "a/", so they have been listed already.
                number = self.first_from(&[&prefix, &below[..slash], b"0"].concat());
                continue;
            }
            children.extend(self.node(number).map(|node| (below.to_vec(), node)));
            number += 1;
        }
        children
    }

    /// Returns the files whose paths begin with `prefix`.
    pub(crate) fn files_below(&self, prefix: &[u8]) -> Vec<WorkTreeFile> {
        let mut files = Vec::new();
        for number in self.first_from(prefix).. {
            let path = self.path(number);
            if path.is_empty() || !path.starts_with(prefix) {
                break;
            }
            if let Some(WorkTreeNode::File(file)) = self.node(number) {
                files.push(file);
            }
        }
        files
    }

    /// Returns all directories and files, each with its path.
    pub(crate) fn nodes(&self) -> Vec<(Vec<u8>, WorkTreeNode)> {
        let (mut nodes, mut before) = (Vec::new(), &[][..]);
        for number in 0.. {
            let (Some(entry), Some(node)) = (self.entry(number), self.node(number)) else {
                break;
            };
            let path = entry.path;
            let slashes = path.iter().enumerate().filter(|&(_, &byte)| byte == b'/');
            for (at, _) in slashes {
                // The entries of a directory are neighbours, so the one before is in it, too.
                if !before.starts_with(&path[..=at]) {
                    nodes.push((path[..at].to_vec(), WorkTreeNode::Directory));
                }
            }
            nodes.push((path.to_vec(), node));
            before = path;
        }
        nodes
    }

    /// Returns the paths that differ between this work tree and `other`: added, removed, or with
    /// another inode.
    pub(crate) fn changed_paths(&self, other: &Self) -> Vec<Vec<u8>> {
        // Both indexes are sorted, so one pass merges them.
        let (mut ours, mut theirs) = (0, 0);
        let mut changed = Vec::new();
        loop {
            let (one, two) = (self.entry(ours), other.entry(theirs));
            let order = match (&one, &two) {
                (None, None) => return changed,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(one), Some(two)) => one.path.cmp(two.path),
            };
            let is_same = match (&one, &two) {
                (Some(one), Some(two)) => {
                    let run_of = |tree: &Self, number, mtime: u32| {
                        tree.run(number)
                            .and_then(|run| run.identity(i64::from(mtime)))
                    };
                    // The values from which `WorkTreeFile::ino` makes the inode number.
                    (one.id, one.mode, one.mtime) == (two.id, two.mode, two.mtime)
                        && run_of(self, ours, one.mtime) == run_of(other, theirs, two.mtime)
                }
                _ => false,
            };
            if order.is_ne() || !is_same {
                let path = if order.is_le() {
                    self.path(ours)
                } else {
                    other.path(theirs)
                };
                changed.push(path.to_vec());
            }
            ours += usize::from(order.is_le());
            theirs += usize::from(order.is_ge());
        }
    }
}

fn bad_index(reason: &'static str) -> LoadError {
    let section = "index";
    FormatError::Malformed { section, reason }.into()
}

/// Returns the runs of the work tree in order. The segment of a large file follows its run.
pub(crate) fn runs(segments: &[Arc<Segment>]) -> Vec<Arc<Run>> {
    let mut runs = Vec::new();
    for (number, segment) in segments.iter().enumerate() {
        if segment.record().role == Role::WorkTree {
            let next = segments
                .get(number + 1)
                .filter(|next| next.record().role == Role::LargeFile);
            runs.push(Arc::new(Run {
                members: Arc::clone(segment),
                large_file: next.cloned(),
            }));
        }
    }
    runs
}

impl WorkTreeFile {
    /// Returns the inode number of the file at `path` in the work tree of `repo`. A file with other
    /// bytes has another inode, so the kernel may cache the bytes of an inode for good.
    pub(crate) fn ino(&self, repo: &RepoName, path: &[u8]) -> Ino {
        let mode = match (self.is_symlink, self.is_executable) {
            (true, _) => SYMLINK,
            (false, true) => 0o100_755,
            (false, false) => 0o100_644,
        };
        let ino = work_tree_inode(repo, path, (&self.blob, mode, self.mtime));
        Ino(match self.run.identity(self.mtime) {
            Some(run) => inode_of(&[&ino.to_le_bytes(), run.0.as_bytes()]),
            None => ino,
        })
    }

    /// Reads `range` of the file, in bytes; the part beyond its end is ignored.
    pub(crate) async fn read(&self, range: std::ops::Range<u64>) -> Result<Vec<u8>, ReadError> {
        let table = self.run.members.table(Purpose::Demand).await?;
        // Without these errors, a file of a damaged archive would read as empty, with success.
        let (content, size) = self.content(&table).ok_or(ReadError::Contradiction {
            what: "its index has a file that the table of its segment doesn't have",
        })?;
        if size < self.size {
            return Err(ReadError::Contradiction {
                what: "a file is longer in its index than in the table of its segment",
            });
        }
        let range = range.start..range.end.min(size);
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        match content {
            Content::Inline { offset } => {
                let range = offset.saturating_add(range.start)..offset.saturating_add(range.end);
                self.run.members.read(range, Purpose::Demand).await
            }
            Content::Segment(id) => match &self.run.large_file {
                Some(segment) if segment.record().id == id => {
                    segment.read(range, Purpose::Demand).await
                }
                _ => Err(ReadError::Contradiction {
                    what: "the data of a large file is not in the segment after its run",
                }),
            },
        }
    }

    /// Fetches the chunks that have the file's bytes, and no others.
    pub(crate) async fn fetch(&self) -> Result<(), ReadError> {
        if let Some(segment) = self.own_segment() {
            return segment.fetch(0..segment.len(), Purpose::Background).await;
        }
        let table = self.run.members.table(Purpose::Background).await?;
        match self.content(&table) {
            Some((Content::Inline { offset }, size)) => {
                let range = offset..offset.saturating_add(size);
                self.run.members.fetch_exactly(range).await
            }
            // A symbolic link is in the table. A file that is in no segment fails when it is read.
            _ => Ok(()),
        }
    }

    /// Returns the segment that is this file, or `None` if the file shares a segment.
    pub(crate) fn own_segment(&self) -> Option<&Arc<Segment>> {
        self.run.large_file.as_ref().filter(|segment| {
            segment
                .record()
                .file
                .as_ref()
                .is_some_and(|file| file.path.as_bytes() == &*self.path)
        })
    }

    /// Returns where the table of the run places the file, and its size.
    fn content(&self, table: &SegmentTable) -> Option<(Content, u64)> {
        table
            .entries()
            .iter()
            .find(|entry| entry.path.as_bytes() == &*self.path)
            .and_then(|entry| match entry.kind {
                EntryKind::File(content) => Some((content, entry.size)),
                EntryKind::Directory | EntryKind::Symlink(_) => None,
            })
    }

    /// Returns the target of a symbolic link.
    pub(crate) async fn target(&self) -> Result<Vec<u8>, ReadError> {
        let table = self.run.members.table(Purpose::Demand).await?;
        let entry = table
            .entries()
            .iter()
            .find(|entry| entry.path.as_bytes() == &*self.path);
        match entry.map(|entry| &entry.kind) {
            // The kernel takes no longer target.
            Some(EntryKind::Symlink(target)) if target.len() <= MAX_TARGET => Ok(target.to_vec()),
            Some(EntryKind::Symlink(_)) => Err(ReadError::Contradiction {
                what: "a symbolic link has a target that no file system can have",
            }),
            _ => Err(ReadError::Contradiction {
                what: "its index has a symbolic link that the table of its segment doesn't have",
            }),
        }
    }
}
