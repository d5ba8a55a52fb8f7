//! The work tree and the index of HEAD, in segments that unchanged runs share with earlier
//! snapshots. Real git writes the files, so that attributes do what they do in a clone.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cachewfs_format::{Digest, EntryKind, GitPath, PublishedFile, RunReuse};

use super::PublishError;
use super::build::Snapshot;
use super::check::check_index_part;
use super::job::Job;
use super::members::{Member, MemberWriter};
use super::segments::{RANDOM_CHUNK_LEN, SegmentSink};
use super::tree::{TreeEntry, TreeEntryKind, TreeList};
use super::{index, times};
use crate::git_hash::GitHash;
use crate::mirror::{GitCommand, has_room};
use crate::store::read_file;

/// How many reused parts of an index are asked for at once: each is a few kilobytes, and a bucket
/// takes as long for one as for many.
const PARTS_AT_ONCE: usize = 64;

/// The work tree of HEAD, ready to be put in an archive.
#[derive(Debug)]
pub(super) struct Checkout {
    pub(super) runs: Vec<CheckoutRun>,
    /// The bytes after the entries of the index.
    pub(super) index_trailer: Vec<u8>,
}

impl Checkout {
    /// What a later publish can use again.
    pub(super) fn into_reusable(self) -> Vec<RunReuse> {
        self.runs.into_iter().map(|run| run.reuse).collect()
    }
}

/// One run, written now or earlier.
#[derive(Debug)]
pub(super) struct CheckoutRun {
    pub(super) reuse: RunReuse,
    /// The path of the large file that the run is, if it is one.
    pub(super) large_file: Option<GitPath>,
}

/// Makes segments of the work tree of HEAD. Runs that haven't changed since the previous snapshot
/// keep their segments.
pub(super) fn check_out(
    job: &Job<'_>,
    sink: &mut SegmentSink,
    of: &Snapshot<'_>,
) -> Result<Checkout, PublishError> {
    let work_tree = WorkTree {
        job,
        index: job.tmp_path("index"),
        root: job.tmp_path("tree"),
    };
    fs::create_dir(&work_tree.root).map_err(PublishError::at(&work_tree.root))?;
    let list = TreeList::create(job)?;
    work_tree.read_tree(&list)?;
    let reusable: HashMap<Digest, &RunReuse> = of
        .previous
        .into_iter()
        .flat_map(|previous| &previous.runs)
        .map(|run| (run.key, run))
        .collect();
    let reused = work_tree.write_files(&list, &reusable)?;
    let mut index = IndexChecksum::begin(of, list.entries(), &reused);
    let mut runs = Vec::new();
    for run in list.runs()? {
        job.check_stop()?;
        let run = run?;
        let key = list.key(&run);
        let reuse = match reusable.get(&key) {
            Some(&reuse) => {
                index.add_reused(reuse)?;
                reuse.clone()
            }
            None => work_tree.store_run(sink, &run, (key, &mut index))?,
        };
        let large_file = reuse.large_file.as_ref().and(run.into_iter().next());
        runs.push(CheckoutRun {
            reuse,
            large_file: large_file.map(|entry| entry.path),
        });
    }
    fs::remove_dir_all(&work_tree.root).map_err(PublishError::at(&work_tree.root))?;
    let id_len = of.refs.commit.as_bytes().len();
    let tree_extension = index::read_tree_extension(&work_tree.index, id_len)?;
    Ok(Checkout {
        runs,
        index_trailer: index::trailer(tree_extension.as_deref(), index.hash),
    })
}

/// The checksum of an index whose parts are written now, or were written for the previous snapshot.
struct IndexChecksum<'a> {
    hash: GitHash,
    of: &'a Snapshot<'a>,
    /// The runs, in order, that keep their parts.
    reused: &'a [&'a RunReuse],
    /// Number of reused parts that were read.
    read: usize,
}

impl<'a> IndexChecksum<'a> {
    /// Starts with the index's header. `reused` are the runs, in order, that keep their parts.
    fn begin(of: &'a Snapshot<'a>, entries: u32, reused: &'a [&'a RunReuse]) -> Self {
        let mut hash = GitHash::of_format(of.refs.commit.as_bytes().len());
        hash.update(&index::header(entries));
        Self {
            hash,
            of,
            reused,
            read: 0,
        }
    }

    /// Adds the part of a run that has so many files.
    fn add(&mut self, part: &[u8], files: u32) -> Result<(), PublishError> {
        check_index_part(part, self.of.refs.commit.as_bytes().len(), files)?;
        self.hash.update(part);
        Ok(())
    }

    /// Adds a part that was written for the previous snapshot.
    fn add_reused(&mut self, run: &RunReuse) -> Result<(), PublishError> {
        let (store, repo) = (self.of.store, self.of.repo);
        if self.read.is_multiple_of(PARTS_AT_ONCE) {
            let next = self.reused.iter().skip(self.read).take(PARTS_AT_ONCE);
            store.bring_soon(repo, next.map(|run| run.index_part.segment));
        }
        self.read += 1;
        self.add(&read_file(store, repo, &run.index_part)?, run.files)
    }
}

/// A temporary work tree, with only the files of runs that changed.
struct WorkTree<'a> {
    job: &'a Job<'a>,
    index: PathBuf,
    root: PathBuf,
}

impl WorkTree<'_> {
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

    /// Checks out the files of all runs that can't be reused. Returns the others, in order.
    fn write_files<'r>(
        &self,
        list: &TreeList,
        reusable: &HashMap<Digest, &'r RunReuse>,
    ) -> Result<Vec<&'r RunReuse>, PublishError> {
        let io = || PublishError::at(self.job.tmp);
        let mut reused = Vec::new();
        let mut paths = BufWriter::new(self.job.create("paths")?);
        for run in list.runs()? {
            let run = run?;
            if let Some(&reuse) = reusable.get(&list.key(&run)) {
                reused.push(reuse);
                continue;
            }
            for entry in run
                .iter()
                .filter(|entry| entry.kind != TreeEntryKind::Submodule)
            {
                paths.write_all(entry.path.as_bytes()).map_err(io())?;
                paths.write_all(&[0]).map_err(io())?;
            }
        }
        paths.flush().map_err(io())?;
        self.git("checkout-index")
            .args(["-f", "-q", "-z", "--stdin"])
            .input_file(self.job.open("paths")?)
            .effect()?;
        Ok(reused)
    }

    /// Makes the segments of one run, removes its files, and adds its part of the index to the
    /// checksum.
    fn store_run(
        &self,
        sink: &mut SegmentSink,
        run: &[TreeEntry],
        (key, checksum): (Digest, &mut IndexChecksum<'_>),
    ) -> Result<RunReuse, PublishError> {
        let mut members = MemberWriter::begin(sink)?;
        let mut part = Vec::new();
        let mut large_file = None;
        for entry in run {
            let path = self.root.join(OsStr::from_bytes(entry.path.as_bytes()));
            let size = match entry.kind {
                TreeEntryKind::Submodule => {
                    members.empty(member(entry), EntryKind::Directory)?;
                    0
                }
                TreeEntryKind::Symlink => {
                    let target = fs::read_link(&path).map_err(PublishError::at(&path))?;
                    let target = target.as_os_str().as_bytes();
                    members.empty(member(entry), EntryKind::Symlink(target.into()))?;
                    target.len() as u64
                }
                TreeEntryKind::File | TreeEntryKind::Executable if entry.is_large() => {
                    let stored = sink.store_file(&path, RANDOM_CHUNK_LEN)?;
                    members.file_elsewhere(member(entry), stored.size, stored.segment.id)?;
                    let size = stored.size;
                    large_file = Some(PublishedFile {
                        name: String::new(),
                        ..stored
                    });
                    size
                }
                TreeEntryKind::File | TreeEntryKind::Executable => {
                    store_small(&mut members, member(entry), &path)?
                }
            };
            index::push_entry(&mut part, entry, size);
            if entry.kind != TreeEntryKind::Submodule {
                fs::remove_file(&path).map_err(PublishError::at(&path))?;
            }
        }
        let files = u32::try_from(run.len()).unwrap_or(u32::MAX);
        checksum.add(&part, files)?;
        Ok(RunReuse {
            key,
            files,
            work_tree: members.finish(sink)?,
            large_file,
            index_part: sink.store_bytes(&part, part.len() as u64, Vec::new())?,
        })
    }
}

fn member(entry: &TreeEntry) -> Member {
    Member {
        path: entry.path.clone(),
        mode: entry.kind.permissions(),
        mtime: times::WORK_TREE,
        blob: (entry.kind != TreeEntryKind::Submodule).then_some(entry.oid),
    }
}

fn store_small(
    members: &mut MemberWriter,
    member: Member,
    path: &Path,
) -> Result<u64, PublishError> {
    let file = File::open(path).map_err(PublishError::at(path))?;
    let size = file.metadata().map_err(PublishError::at(path))?.len();
    members.file(member, size, file)?;
    Ok(size)
}
