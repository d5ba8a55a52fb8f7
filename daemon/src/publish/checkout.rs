//! The work tree and the index of HEAD, in segments that unchanged runs share with earlier
//! snapshots. Real git writes the files, so that attributes do what they do in a clone.

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
use super::build::Snapshot;
use super::check::check_index_part;
use super::earlier::{CheckedOut, Times};
use super::index::{self, FileStat};
use super::index_parts::IndexParts;
use super::job::Job;
use super::members::{Member, MemberWriter};
use super::segments::{RANDOM_CHUNK_LEN, SegmentSink};
use super::times;
use super::tree::{TreeEntry, TreeEntryKind, TreeList};
use crate::mirror::{GitCommand, has_room, missing_objects};

/// The work tree of HEAD, ready to be put in an archive.
#[derive(Debug)]
pub(super) struct Checkout {
    pub(super) runs: Vec<CheckoutRun>,
    /// The bytes after the entries of the index.
    pub(super) index_trailer: Vec<u8>,
    /// The time of the index in seconds since the epoch: later than that of any file, so that git
    /// believes it.
    pub(super) index_mtime: i64,
    /// Why the work tree lacks some files of HEAD's tree, if it does.
    pub(super) notice: Option<String>,
}

impl Checkout {
    /// Returns what a later publish can use again.
    pub(super) fn into_reusable(self) -> Vec<ReusableRun> {
        self.runs.into_iter().map(|run| run.reuse).collect()
    }
}

/// One run, written now or earlier.
#[derive(Debug)]
pub(super) struct CheckoutRun {
    pub(super) reuse: ReusableRun,
    /// Path and time of the large file that the run is, if it is one.
    pub(super) large_file: Option<(GitPath, i64)>,
}

/// Makes segments of the work tree of HEAD. Runs that haven't changed since the previous snapshot
/// keep their segments.
pub(super) fn check_out(
    job: &Job<'_>,
    sink: &mut SegmentSink,
    of: &Snapshot<'_>,
) -> Result<Checkout, PublishError> {
    let work_tree = WorkTree::create(job, of)?;
    let mut list = TreeList::create(job)?;
    work_tree.read_tree(&list)?;
    let reusable: HashMap<Digest, &ReusableRun> = of
        .previous
        .into_iter()
        .flat_map(|previous| &previous.runs)
        .map(|run| (run.key, run))
        .collect();
    let reused = work_tree.write_files(&mut list, &reusable)?;
    let mut times = Times::begin(of, &list, &reused);
    let mut index = IndexChecksum::begin(of, list.entries(), reused);
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
    let id_len = of.refs.commit.as_bytes().len();
    let notice = list.left_out.notice();
    let tree_extension = match notice {
        None => index::read_tree_extension(&work_tree.index, id_len)?,
        // It says that the index has all of HEAD's tree.
        Some(_) => None,
    };
    Ok(Checkout {
        runs,
        index_mtime: index.newest + 1,
        index_trailer: index::trailer(tree_extension.as_deref(), index.hash),
        notice,
    })
}

/// The checksum of an index whose parts are written now, or were written for the previous snapshot.
struct IndexChecksum<'a> {
    hash: GitHash,
    /// Length of an object id in bytes.
    id_len: usize,
    /// The parts of the runs that keep theirs.
    reused: IndexParts<'a>,
    /// The latest time of a file so far.
    newest: i64,
}

impl<'a> IndexChecksum<'a> {
    /// Starts with the index's header. `reused` are the runs, in order, that keep their parts.
    fn begin(of: &'a Snapshot<'a>, entries: u32, reused: Vec<&'a ReusableRun>) -> Self {
        let id_len = of.refs.commit.as_bytes().len();
        let mut hash = GitHash::of_format(id_len);
        hash.update(&index::header(entries));
        Self {
            hash,
            id_len,
            reused: IndexParts::new(of, reused),
            newest: times::EARLIEST,
        }
    }

    /// Adds the part of a run that has so many files. Returns the latest time of these.
    fn add(&mut self, part: &[u8], files: u32) -> Result<i64, PublishError> {
        let newest = check_index_part(part, self.id_len, files)?;
        self.hash.update(part);
        self.newest = self.newest.max(newest);
        Ok(newest)
    }

    /// Adds a part that was written for the previous snapshot. Returns the latest time in it.
    fn add_reused(&mut self, run: &ReusableRun) -> Result<i64, PublishError> {
        let part = self.reused.read(run)?;
        self.add(&part, run.files)
    }
}

/// A temporary work tree, with only the files of runs that changed.
struct WorkTree<'a> {
    job: &'a Job<'a>,
    of: &'a Snapshot<'a>,
    index: PathBuf,
    root: PathBuf,
    /// The root, opened. Paths in the work tree may be as long as the kernel takes them, so the root's
    /// path can't stand before them.
    directory: OwnedFd,
}

impl<'a> WorkTree<'a> {
    fn create(job: &'a Job<'a>, of: &'a Snapshot<'a>) -> Result<Self, PublishError> {
        let root = job.tmp_path("tree");
        fs::create_dir(&root).map_err(PublishError::at(&root))?;
        let directory = File::open(&root).map_err(PublishError::at(&root))?.into();
        Ok(Self {
            job,
            of,
            index: job.tmp_path("index"),
            root,
            directory,
        })
    }

    fn git(&self, subcommand: &str) -> GitCommand {
        self.job
            .git(subcommand)
            .config("core.bare", false)
            .config("checkout.workers", 2)
            // The defaults of a clone on Linux: the operator's configuration must not change files.
            .config("core.autocrlf", false)
            .config("core.eol", "lf")
            .config("core.attributesFile", "/dev/null")
            .variable("GIT_WORK_TREE", &self.root)
            .variable("GIT_INDEX_FILE", &self.index)
    }

    /// Makes the index of HEAD's tree. An error says whether git refuses a path in the tree.
    fn read_tree(&self, list: &TreeList) -> Result<(), PublishError> {
        let read_tree = || {
            self.git("read-tree")
                .config("index.version", 2)
                .config("index.recordEndOfIndexEntries", true)
                .args(["HEAD"])
        };
        match read_tree().effect() {
            Err(error) if error.exit_code().is_some() => {
                if !has_room(self.job.tmp, list.len()?) {
                    let source = ErrorKind::StorageFull.into();
                    return Err(PublishError::at(&self.index)(source));
                }
                // Without these, git refuses only paths that the list refuses, too.
                let unprotected = read_tree()
                    .config("core.protectHFS", false)
                    .config("core.protectNTFS", false);
                unprotected.effect()?;
                Err(PublishError::RefusedTree(error))
            }
            made => Ok(made?),
        }
    }

    /// Checks out the files of all runs that can't be reused, and leaves out of `list` the files that
    /// can't be written. Returns the reused runs, in order.
    fn write_files<'r>(
        &self,
        list: &mut TreeList,
        reusable: &HashMap<Digest, &'r ReusableRun>,
    ) -> Result<Vec<&'r ReusableRun>, PublishError> {
        let mut is_again = false;
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
                    if missing.is_empty() || is_again {
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
            is_again = true;
        }
    }

    /// Writes the paths of files in runs that can't be reused to the file `paths`. Returns the other
    /// runs, in order, and the sum of the files' lengths in bytes.
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

    /// Returns the files that git should have written and didn't.
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

    /// Fails if git couldn't write files for a reason that lies in the disk or in the mirror, not in
    /// the files.
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

    /// Makes the segments of one run, removes its files, and adds its part of the index to the
    /// checksum. Returns the run with the latest time of its files.
    fn store_run(
        &self,
        sink: &mut SegmentSink,
        run: &[TreeEntry],
        (key, times, checksum): (Digest, &mut Times<'_>, &mut IndexChecksum<'_>),
    ) -> Result<(ReusableRun, i64), PublishError> {
        let mut members = MemberWriter::begin(sink)?;
        let mut part = Vec::new();
        let mut large_file = None;
        for entry in run {
            let path = OsStr::from_bytes(entry.path.as_bytes());
            let io = || PublishError::at(path.as_ref());
            let (mtime, size) = match entry.kind {
                TreeEntryKind::Submodule => {
                    let mtime = times.of(entry, CheckedOut::AsStored)?;
                    members.empty(member(entry, mtime), EntryKind::Directory)?;
                    (mtime, 0)
                }
                TreeEntryKind::Symlink => {
                    let mtime = times.of(entry, CheckedOut::AsStored)?;
                    let target = readlinkat(&self.directory, path, Vec::new());
                    let target = target.map_err(|error| io()(error.into()))?;
                    let target = target.as_bytes();
                    members.empty(member(entry, mtime), EntryKind::Symlink(target.into()))?;
                    (mtime, target.len() as u64)
                }
                TreeEntryKind::File | TreeEntryKind::Executable if entry.is_large() => {
                    let stored = sink.store_open(&self.open(entry)?, path, RANDOM_CHUNK_LEN)?;
                    let mtime = times.of(entry, CheckedOut::Large(stored.segment.id))?;
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
                    let mtime = times.of(entry, CheckedOut::Small(&file, size))?;
                    members.file(member(entry, mtime), size, file)?;
                    (mtime, size)
                }
            };
            let identity = (entry.oid.as_bytes(), entry.kind.git_mode(), mtime);
            let ino = work_tree_inode(self.of.repo, entry.path.as_bytes(), identity);
            index::push_entry(&mut part, entry, FileStat { ino, mtime, size });
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
