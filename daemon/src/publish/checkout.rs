//! The work tree and the index of HEAD, in segments that unchanged runs share with earlier
//! snapshots. Real git writes the files, so that attributes do what they do in a clone.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cachewfs_format::{Digest, EntryKind, GitPath, Manifest, PublishedFile, RunReuse};

use super::PublishError;
use super::job::Job;
use super::members::{Member, MemberWriter};
use super::segments::{RANDOM_CHUNK_LEN, SegmentSink};
use super::tree::{TreeEntry, TreeEntryKind, TreeList};
use super::{index, times};
use crate::mirror::GitCommand;

/// The work tree of HEAD, ready to be put in an archive.
#[derive(Debug)]
pub(super) struct Checkout {
    pub(super) runs: Vec<CheckoutRun>,
    pub(super) tree_extension: Option<Vec<u8>>,
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

/// Makes segments of the work tree of HEAD, taking those of `previous` where nothing changed.
pub(super) fn check_out(
    job: &Job<'_>,
    sink: &mut SegmentSink,
    previous: Option<&Manifest>,
) -> Result<Checkout, PublishError> {
    let work_tree = WorkTree {
        job,
        index: job.tmp_path("index"),
        root: job.tmp_path("tree"),
    };
    fs::create_dir(&work_tree.root).map_err(PublishError::at(&work_tree.root))?;
    work_tree
        .git("read-tree")
        .config("index.version", 2)
        .config("index.recordEndOfIndexEntries", true)
        .args(["HEAD"])
        .effect()?;
    let list = TreeList::create(job)?;
    let reusable: HashMap<Digest, &RunReuse> = previous
        .into_iter()
        .flat_map(|previous| &previous.runs)
        .map(|run| (run.key, run))
        .collect();
    work_tree.write_files(&list, &reusable)?;
    let mut runs = Vec::new();
    let mut oid = None;
    for run in list.runs()? {
        job.check_stop()?;
        let run = run?;
        let key = list.key(&run);
        let reuse = match reusable.get(&key) {
            Some(&reuse) => reuse.clone(),
            None => work_tree.store_run(sink, &run, key)?,
        };
        oid = run.first().map(|entry| entry.oid);
        let large_file = reuse.large_file.as_ref().and(run.into_iter().next());
        runs.push(CheckoutRun {
            reuse,
            large_file: large_file.map(|entry| entry.path),
        });
    }
    fs::remove_dir_all(&work_tree.root).map_err(PublishError::at(&work_tree.root))?;
    let tree_extension = match oid {
        Some(oid) => index::read_tree_extension(&work_tree.index, &oid)?,
        None => None,
    };
    Ok(Checkout {
        runs,
        tree_extension,
    })
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
            .variable("GIT_WORK_TREE", &self.root)
            .variable("GIT_INDEX_FILE", &self.index)
    }

    /// Checks out the files of all runs that can't be used again.
    fn write_files(
        &self,
        list: &TreeList,
        reusable: &HashMap<Digest, &RunReuse>,
    ) -> Result<(), PublishError> {
        let io = || PublishError::at(self.job.tmp);
        let mut paths = BufWriter::new(self.job.create("paths")?);
        for run in list.runs()? {
            let run = run?;
            if reusable.contains_key(&list.key(&run)) {
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
        Ok(())
    }

    /// Makes the segments of one run, and removes its files.
    fn store_run(
        &self,
        sink: &mut SegmentSink,
        run: &[TreeEntry],
        key: Digest,
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
        Ok(RunReuse {
            key,
            files: u32::try_from(run.len()).unwrap_or(u32::MAX),
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
