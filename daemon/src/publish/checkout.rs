//! The work tree and the index of HEAD, as segments.
//!
//! Git itself writes the files, so that attributes have the same effect as in a clone. The tree is
//! cut into runs. A run that hasn't changed since the previous snapshot keeps its segments, and its
//! files aren't written at all:
//!
//! ```text
//! tree of HEAD ─► runs ─┬─ unchanged ─► the segments of the previous snapshot
//!                       └─ changed ───► git writes the files ─► times ─► new segments
//! ```

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use cachewfs_format::{
    Digest, EntryKind, GitHash, GitPath, PublishedFile, ReusableRun, work_tree_inode,
};
use rustix::fs::{AtFlags, Mode, OFlags, openat, readlinkat, statat, unlinkat};

use super::PublishError;
use super::check::check_index_part;
use super::file_times::{CheckedOutBytes, FileTimes};
use super::fixed_times;
use super::index::{self, FileStat};
use super::index_parts::IndexParts;
use super::input::BuildInput;
use super::job::PublishJob;
use super::members::{Member, MemberWriter};
use super::segments::{RANDOM_CHUNK_LEN, SegmentSink};
use super::tree::{TreeEntry, TreeEntryKind, TreeList};
use crate::mirror::{GitCommand, has_room, missing_objects};

/// The work tree and index of HEAD, ready to be placed in an archive.
#[derive(Debug)]
pub(super) struct Checkout {
    pub(super) runs: Vec<CheckoutRun>,
    /// The bytes after the entries of the index.
    pub(super) index_trailer: Vec<u8>,
    /// The modification time of the index in seconds since the epoch. It is later than that of any
    /// file: otherwise git would take files for racily clean and read them again.
    pub(super) index_mtime: i64,
    /// A sentence that says which files of HEAD's tree the work tree lacks, if it lacks any.
    pub(super) notice: Option<String>,
}

impl Checkout {
    /// Returns the runs, which a later publish can use again.
    pub(super) fn into_reusable(self) -> Vec<ReusableRun> {
        self.runs.into_iter().map(|run| run.reuse).collect()
    }
}

/// One run, either new or from an earlier snapshot.
#[derive(Debug)]
pub(super) struct CheckoutRun {
    pub(super) reuse: ReusableRun,
    /// The path and modification time of the large file, if the run is a large file.
    pub(super) large_file: Option<(GitPath, i64)>,
}

/// Makes segments of the work tree of HEAD. Runs that haven't changed since the previous snapshot
/// keep their segments.
///
/// Reads the list of the tree several times instead of keeping it in memory, because it may have
/// millions of entries.
pub(super) fn check_out(
    job: &PublishJob<'_>,
    sink: &mut SegmentSink,
    input: &BuildInput<'_>,
) -> Result<Checkout, PublishError> {
    let work_tree = WorkTree::create(job, input)?;
    let mut list = TreeList::create(job)?;
    // First of all git decides whether it accepts the tree, before any file is written.
    work_tree.read_tree(&list)?;
    let reusable: HashMap<Digest, &ReusableRun> = input
        .previous
        .into_iter()
        .flat_map(|previous| &previous.runs)
        .map(|run| (run.key, run))
        .collect();
    let reused = work_tree.write_files(&mut list, &reusable)?;
    let mut times = FileTimes::begin(input, &list, &reused);
    let mut index = IndexChecksum::begin(input, list.entries(), reused);
    let mut runs = Vec::new();
    for run in list.runs()? {
        job.check_stop()?;
        let run = run?;
        let key = list.key(&run);
        let (reuse, newest) = match reusable.get(&key) {
            Some(&reuse) => (reuse.clone(), index.add_reused(reuse)?),
            None => work_tree.store_run(sink, &run, (key, &mut times, &mut index))?,
        };
        let large_file = reuse.large_file.as_ref().and(run.into_iter().next());
        runs.push(CheckoutRun {
            reuse,
            large_file: large_file.map(|entry| (entry.path, newest)),
        });
    }
    fs::remove_dir_all(&work_tree.root).map_err(PublishError::at(&work_tree.root))?;
    let id_len = input.refs.commit.as_bytes().len();
    let notice = list.left_out.notice();
    let tree_extension = match notice {
        None => index::read_tree_extension(&work_tree.index, id_len)?,
        // The extension says that the index has all files of HEAD's tree, which would be wrong.
        Some(_) => None,
    };
    Ok(Checkout {
        runs,
        index_mtime: index.newest + 1,
        index_trailer: index::trailer(tree_extension.as_deref(), index.hash),
        notice,
    })
}

/// The checksum of an index with new parts and with parts from the previous snapshot.
struct IndexChecksum<'a> {
    hash: GitHash,
    /// Length of an object id in bytes.
    id_len: usize,
    /// The parts that are read from the previous snapshot.
    reused: IndexParts<'a>,
    /// The latest modification time of a file so far.
    newest: i64,
}

impl<'a> IndexChecksum<'a> {
    /// Starts with the index's header. `reused` are the runs that keep their parts, in order.
    fn begin(input: &'a BuildInput<'a>, entries: u32, reused: Vec<&'a ReusableRun>) -> Self {
        let id_len = input.refs.commit.as_bytes().len();
        let mut hash = GitHash::of_format(id_len);
        hash.update(&index::header(entries));
        Self {
            hash,
            id_len,
            reused: IndexParts::new(input, reused),
            newest: fixed_times::EARLIEST,
        }
    }

    /// Adds the part of a run with this number of files. Returns the latest time in the part.
    fn add(&mut self, part: &[u8], files: u32) -> Result<i64, PublishError> {
        let newest = check_index_part(part, self.id_len, files)?;
        self.hash.update(part);
        self.newest = self.newest.max(newest);
        Ok(newest)
    }

    /// Adds a part from the previous snapshot. Returns the latest time in it.
    fn add_reused(&mut self, run: &ReusableRun) -> Result<i64, PublishError> {
        // The checksum is over all bytes of the index, so even unchanged parts have to be read.
        let part = self.reused.read(run)?;
        self.add(&part, run.files)
    }
}

/// A temporary work tree that has only the files of changed runs.
struct WorkTree<'a> {
    job: &'a PublishJob<'a>,
    input: &'a BuildInput<'a>,
    index: PathBuf,
    root: PathBuf,
    /// The opened root, which paths are relative to. A path in the work tree may be as long as the
    /// kernel allows, so with the path of the root before it, it could be too long.
    directory: OwnedFd,
}

impl<'a> WorkTree<'a> {
    fn create(job: &'a PublishJob<'a>, input: &'a BuildInput<'a>) -> Result<Self, PublishError> {
        let root = job.tmp_path("tree");
        fs::create_dir(&root).map_err(PublishError::at(&root))?;
        let directory = File::open(&root).map_err(PublishError::at(&root))?.into();
        Ok(Self {
            job,
            input,
            index: job.tmp_path("index"),
            root,
            directory,
        })
    }

    /// Returns a git command that works on this work tree and its index.
    fn git(&self, subcommand: &str) -> GitCommand {
        self.job
            .git(subcommand)
            .config("core.bare", false)
            .config("checkout.workers", 2)
            // The defaults of a clone on Linux. The git configuration of the daemon's user must not
            // change the bytes of files.
            .config("core.autocrlf", false)
            .config("core.eol", "lf")
            .config("core.attributesFile", "/dev/null")
            .variable("GIT_WORK_TREE", &self.root)
            .variable("GIT_INDEX_FILE", &self.index)
    }

    /// Writes the index of HEAD's tree. Fails with [`PublishError::RefusedTree`] if git refuses a
    /// path in the tree.
    fn read_tree(&self, list: &TreeList) -> Result<(), PublishError> {
        let read_tree = || {
            self.git("read-tree")
                .config("index.version", 2)
                .config("index.recordEndOfIndexEntries", true)
                .args(["HEAD"])
        };
        match read_tree().effect() {
            Err(error) if error.exit_code().is_some() => {
                // A failure of git may have two other causes than the tree. Both must stay errors:
                // a refused tree is published without its work tree, and a full disk or a damaged
                // mirror must not lead to that.
                if !has_room(self.job.tmp, list.len()?) {
                    let source = ErrorKind::StorageFull.into();
                    return Err(PublishError::at(&self.index)(source));
                }
                // If git reads the tree without these protections, it has refused a path because of
                // them. Otherwise the second failure is the error: the list has already refused
                // each path that git refuses without them.
                let unprotected = read_tree()
                    .config("core.protectHFS", false)
                    .config("core.protectNTFS", false);
                unprotected.effect()?;
                Err(PublishError::RefusedTree(error))
            }
            made => Ok(made?),
        }
    }

    /// Checks out the files of all runs that can't be reused. Returns the reused runs, in order.
    ///
    /// Files that git can't write are taken out of `list`.
    fn write_files<'r>(
        &self,
        list: &mut TreeList,
        reusable: &HashMap<Digest, &'r ReusableRun>,
    ) -> Result<Vec<&'r ReusableRun>, PublishError> {
        let mut is_retry = false;
        loop {
            let (reused, wanted) = self.list_files(list, reusable)?;
            let written = self
                .git("checkout-index")
                .args(["-f", "-q", "-z", "--stdin"])
                .input_file(self.job.open("paths")?)
                .effect();
            match written {
                Err(error) if error.exit_code().is_some() => {
                    let missing = self.missing_files(list, reusable)?;
                    self.check_environment(&missing, wanted)?;
                    // Leaving files out changes the keys of their runs, so the files are listed and
                    // written again, but only once: a second failure has another cause.
                    if missing.is_empty() || is_retry {
                        return Err(PublishError::RefusedTree(error));
                    }
                    for entry in &missing {
                        list.leave_out(&entry.path, "git can't write it");
                    }
                }
                written => {
                    written?;
                    return Ok(reused);
                }
            }
            is_retry = true;
        }
    }

    /// Writes the paths of the files in runs that can't be reused to the file `paths`.
    ///
    /// Returns the reused runs, in order, and the sum of the lengths of the listed files in bytes.
    fn list_files<'r>(
        &self,
        list: &TreeList,
        reusable: &HashMap<Digest, &'r ReusableRun>,
    ) -> Result<(Vec<&'r ReusableRun>, u64), PublishError> {
        let io = || PublishError::at(self.job.tmp);
        let (mut reused, mut wanted) = (Vec::new(), 0_u64);
        let mut paths = BufWriter::new(self.job.create("paths")?);
        for run in list.runs()? {
            let run = run?;
            if let Some(&reuse) = reusable.get(&list.key(&run)) {
                reused.push(reuse);
                continue;
            }
            for entry in run.iter().filter(|entry| entry.is_written()) {
                paths.write_all(entry.path.as_bytes()).map_err(io())?;
                paths.write_all(&[0]).map_err(io())?;
                wanted = wanted.saturating_add(entry.blob_len);
            }
        }
        paths.flush().map_err(io())?;
        Ok((reused, wanted))
    }

    /// Returns the files that git should have written but hasn't.
    fn missing_files(
        &self,
        list: &TreeList,
        reusable: &HashMap<Digest, &ReusableRun>,
    ) -> Result<Vec<TreeEntry>, PublishError> {
        let mut missing = Vec::new();
        for run in list.runs()? {
            let run = run?;
            if reusable.contains_key(&list.key(&run)) {
                continue;
            }
            missing.extend(
                run.into_iter()
                    .filter(|entry| entry.is_written() && !self.has(entry)),
            );
        }
        Ok(missing)
    }

    fn has(&self, entry: &TreeEntry) -> bool {
        let path = OsStr::from_bytes(entry.path.as_bytes());
        statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Fails if the disk or the mirror is the reason that git couldn't write files: the disk is
    /// full, or the mirror lacks a git blob.
    fn check_environment(&self, missing: &[TreeEntry], wanted: u64) -> Result<(), PublishError> {
        if !has_room(self.job.tmp, wanted) {
            return Err(PublishError::at(&self.root)(ErrorKind::StorageFull.into()));
        }
        let blobs: Vec<_> = missing.iter().map(|entry| entry.oid).collect();
        let lost = missing_objects(self.job.git, self.job.mirror, &blobs)?;
        match missing.iter().find(|entry| lost.contains(&entry.oid)) {
            Some(entry) => Err(PublishError::BrokenRef {
                name: format!("HEAD:{}", entry.path),
            }),
            None => Ok(()),
        }
    }

    /// Makes the segments of one run and adds its part of the index to the checksum. Returns the
    /// run and the latest modification time of its files.
    fn store_run(
        &self,
        sink: &mut SegmentSink,
        run: &[TreeEntry],
        (key, times, checksum): (Digest, &mut FileTimes<'_>, &mut IndexChecksum<'_>),
    ) -> Result<(ReusableRun, i64), PublishError> {
        let mut members = MemberWriter::begin(sink)?;
        let mut part = Vec::new();
        let mut large_file = None;
        for entry in run {
            let path = OsStr::from_bytes(entry.path.as_bytes());
            let io = || PublishError::at(path.as_ref());
            // The time is found first, because it is in the tar header before the data. The time of
            // a large file depends on the bytes, so its data is stored before.
            let (mtime, size) = match entry.kind {
                TreeEntryKind::Submodule => {
                    let mtime = times.of(entry, CheckedOutBytes::AsStored)?;
                    members.empty(member(entry, mtime), EntryKind::Directory)?;
                    (mtime, 0)
                }
                TreeEntryKind::Symlink => {
                    let mtime = times.of(entry, CheckedOutBytes::AsStored)?;
                    let target = readlinkat(&self.directory, path, Vec::new());
                    let target = target.map_err(|error| io()(error.into()))?;
                    let target = target.as_bytes();
                    members.empty(member(entry, mtime), EntryKind::Symlink(target.into()))?;
                    (mtime, target.len() as u64)
                }
                TreeEntryKind::File | TreeEntryKind::Executable if entry.is_large() => {
                    let stored = sink.store_open(&self.open(entry)?, path, RANDOM_CHUNK_LEN)?;
                    let mtime = times.of(entry, CheckedOutBytes::Large(stored.segment.id))?;
                    let member = member(entry, mtime);
                    members.file_elsewhere(member, stored.size, stored.segment.id)?;
                    let size = stored.size;
                    large_file = Some(PublishedFile {
                        name: String::new(),
                        ..stored
                    });
                    (mtime, size)
                }
                TreeEntryKind::File | TreeEntryKind::Executable => {
                    let file = self.open(entry)?;
                    let size = file.metadata().map_err(io())?.len();
                    let mtime = times.of(entry, CheckedOutBytes::Small(&file, size))?;
                    members.file(member(entry, mtime), size, file)?;
                    (mtime, size)
                }
            };
            let identity = (entry.oid.as_bytes(), entry.kind.git_mode(), mtime);
            let ino = work_tree_inode(self.input.repo, entry.path.as_bytes(), identity);
            index::push_entry(&mut part, entry, FileStat { ino, mtime, size });
            // Each file is removed as soon as it is stored, so that the disk never holds all files
            // and all their segments together.
            if entry.is_written() {
                let removed = unlinkat(&self.directory, path, AtFlags::empty());
                removed.map_err(|error| io()(error.into()))?;
            }
        }
        let files = u32::try_from(run.len()).unwrap_or(u32::MAX);
        let newest = checksum.add(&part, files)?;
        let run = ReusableRun {
            key,
            files,
            work_tree: members.finish(sink)?,
            large_file,
            index_part: sink.store_bytes(&part, part.len() as u64, Vec::new())?,
        };
        Ok((run, newest))
    }

    fn open(&self, entry: &TreeEntry) -> Result<File, PublishError> {
        let path = OsStr::from_bytes(entry.path.as_bytes());
        // `NOFOLLOW`: the tree comes from upstream, and must not lead to a file of this machine.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(&self.directory, path, flags, Mode::empty());
        opened
            .map(File::from)
            .map_err(|error| PublishError::at(path.as_ref())(error.into()))
    }
}

fn member(entry: &TreeEntry, mtime: i64) -> Member {
    Member {
        path: entry.path.clone(),
        mode: entry.kind.permissions(),
        mtime,
        blob: (entry.kind != TreeEntryKind::Submodule).then_some(entry.oid),
    }
}
