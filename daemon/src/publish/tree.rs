//! The tree of HEAD as a list in a temporary file, cut into runs.
//!
//! A run is some neighbouring files whose segments are stored together. Where a run ends depends on
//! the paths only. So if a file is added, the runs after it stay as they are, and a publish uses
//! their segments again.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

use cachewfs_format::limits::MAX_COMPONENT_LEN;
use cachewfs_format::{Digest, GitPath, ObjectId, PathSequence};

use super::PublishError;
use super::job::PublishJob;
use super::left_out::LeftOut;
use super::tree_size::check_tree_size;
use super::tree_size_error::TreeSizeError;
use crate::base::Volume;

/// A file of at least this many bytes is a run by itself, with its data in a segment of its own.
pub(super) const LARGE_FILE_LEN: u64 = 4 << 20;
/// One in this many paths ends a run, on average.
const RUN_LEN: u64 = 128;
/// At most this many files are in a run, even if no path ends it.
const MAX_RUN_FILES: usize = 1024;
/// A run ends when its files have this many bytes: that much is stored again for one changed file.
const MAX_RUN_BYTES: u64 = 4 << 20;
const LIST: &str = "tree.list";
/// At most this many bytes are in a path, or in the target of a symbolic link, on Linux.
const MAX_FILE_PATH_LEN: usize = 4095;

/// One file, symbolic link or submodule of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TreeEntry {
    pub(super) kind: TreeEntryKind,
    pub(super) oid: ObjectId,
    /// The length of the git blob. The file has this length too, unless attributes convert it.
    pub(super) blob_len: u64,
    pub(super) path: GitPath,
}

/// One line of `git ls-tree`. No filesystem may be able to hold its path.
#[derive(Debug)]
struct TreeLine<'a> {
    kind: TreeEntryKind,
    oid: ObjectId,
    blob_len: u64,
    path: &'a [u8],
}

impl<'a> TreeLine<'a> {
    /// Parses `<mode> <type> <oid> <size>\t<path>`.
    fn parse(line: &'a [u8]) -> Result<Self, PublishError> {
        let bad = || PublishError::bad_output(line);
        let tab = line
            .iter()
            .position(|&byte| byte == b'\t')
            .ok_or_else(bad)?;
        let (fields, path) = line.split_at(tab);
        let mut fields = std::str::from_utf8(fields)
            .map_err(|_| bad())?
            .split_ascii_whitespace();
        let mut next = || fields.next().ok_or_else(bad);
        let mode = u32::from_str_radix(next()?, 8).map_err(|_| bad())?;
        let kind = TreeEntryKind::of_mode(mode).ok_or_else(bad)?;
        next()?;
        Ok(Self {
            kind,
            oid: ObjectId::parse(next()?)?,
            // A submodule has "-" as its size.
            blob_len: next()?.parse().unwrap_or(0),
            path: path.get(1..).unwrap_or_default(),
        })
    }

    /// Returns why no Linux filesystem can hold the file, or `None` if it fits.
    fn misfit(&self) -> Option<&'static str> {
        let is_link = self.kind == TreeEntryKind::Symlink;
        let mut components = self.path.split(|&byte| byte == b'/');
        if components.any(|name| name.len() > MAX_COMPONENT_LEN) {
            Some("a name in it is longer than 255 bytes")
        } else if self.path.len() > MAX_FILE_PATH_LEN {
            Some("its path is longer than 4,095 bytes")
        } else if is_link && self.blob_len == 0 {
            Some("it is a symbolic link to an empty path")
        } else if is_link && self.blob_len > MAX_FILE_PATH_LEN as u64 {
            Some("it is a symbolic link to a path longer than 4,095 bytes")
        } else {
            None
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TreeEntryKind {
    File,
    Executable,
    Symlink,
    Submodule,
}

impl TreeEntryKind {
    /// Returns the mode in git trees and in the index.
    pub(super) fn git_mode(self) -> u32 {
        match self {
            Self::File => 0o100_644,
            Self::Executable => 0o100_755,
            Self::Symlink => 0o120_000,
            Self::Submodule => 0o160_000,
        }
    }

    /// Returns the permission bits of the checked-out file.
    pub(super) fn permissions(self) -> u32 {
        match self {
            Self::File => 0o644,
            Self::Executable | Self::Submodule => 0o755,
            Self::Symlink => 0o777,
        }
    }

    /// Returns the kind that a mode in a git tree or in the index stands for, or `None` for a mode
    /// that git doesn't write.
    pub(super) fn of_mode(mode: u32) -> Option<Self> {
        match mode {
            0o120_000 => Some(Self::Symlink),
            0o160_000 => Some(Self::Submodule),
            // Old trees have other permission bits. Git looks only at the owner's execute bit.
            file if file & !0o777 == 0o100_000 && file & 0o100 != 0 => Some(Self::Executable),
            file if file & !0o777 == 0o100_000 => Some(Self::File),
            _ => None,
        }
    }
}

impl TreeEntry {
    fn of_line(line: &TreeLine<'_>) -> Result<Self, PublishError> {
        Ok(Self {
            kind: line.kind,
            oid: line.oid,
            blob_len: line.blob_len,
            path: GitPath::parse(line.path)?,
        })
    }

    /// Parses a line of `git ls-tree -l`. Returns `None` for a file that no filesystem can hold.
    pub(super) fn parse_fitting(line: &[u8]) -> Result<Option<Self>, PublishError> {
        let line = TreeLine::parse(line)?;
        match line.misfit() {
            Some(_) => Ok(None),
            None => Self::of_line(&line).map(Some),
        }
    }

    /// Returns whether git writes a file for this entry.
    pub(super) fn is_written(&self) -> bool {
        self.kind != TreeEntryKind::Submodule
    }

    pub(super) fn is_large(&self) -> bool {
        self.blob_len >= LARGE_FILE_LEN
            && matches!(self.kind, TreeEntryKind::File | TreeEntryKind::Executable)
    }

    fn is_attributes(&self) -> bool {
        self.path.as_bytes().rsplit(|&byte| byte == b'/').next() == Some(b".gitattributes")
    }

    /// Returns whether a run ends after this entry, whatever its neighbours are.
    fn is_cut(&self) -> bool {
        let digest = Digest::of(self.path.as_bytes());
        let [first, second, ..] = *digest.as_bytes();
        u64::from(u16::from_le_bytes([first, second])) % RUN_LEN == 0
    }

    fn write_key(&self, key: &mut Vec<u8>) {
        key.extend_from_slice(&self.kind.git_mode().to_le_bytes());
        key.extend_from_slice(self.oid.as_bytes());
        key.extend_from_slice(self.path.as_bytes());
        key.push(0);
    }
}

/// The list of HEAD's tree in a temporary file, in the order of git's index.
#[derive(Debug)]
pub(super) struct TreeList {
    path: PathBuf,
    /// Number of files, symbolic links and submodules.
    entries: u32,
    /// The digest of all attributes in force, which decide how files are checked out.
    attributes: Digest,
    /// The files that no work tree can have, with the reasons.
    pub(super) left_out: LeftOut,
}

impl TreeList {
    /// Lists HEAD's tree without the files that no filesystem can hold. Fails if the tree is too
    /// large or has a path that git would refuse.
    pub(super) fn create(job: &PublishJob<'_>) -> Result<Self, PublishError> {
        // First: a small number of tree objects can have a huge number of paths, and `ls-tree`
        // would print them all.
        check_tree_size(job, "HEAD")?;
        job.git("ls-tree")
            .args(["-r", "-z", "-l", "--full-tree", "HEAD"])
            .output_to(job.create(LIST)?)?;
        let mut list = Self {
            path: job.tmp_path(LIST),
            entries: 0,
            attributes: Digest::of(b""),
            left_out: LeftOut::default(),
        };
        let mut key = Vec::new();
        let mut paths = PathSequence::default();
        let (mut entries, mut bytes) = (0_u32, 0_u64);
        let mut runs = list.runs()?;
        for run in &mut runs {
            for entry in run? {
                paths.push(&entry.path)?;
                entry.path.check_out_as(entry.kind.git_mode())?;
                entries = entries.saturating_add(1);
                bytes = bytes.saturating_add(entry.blob_len);
                if entry.is_attributes() {
                    entry.write_key(&mut key);
                }
            }
        }
        let misfits = runs.misfits;
        list.entries = entries;
        list.attributes = Digest::of(&key);
        for (path, reason) in misfits {
            list.left_out.push(&path, reason);
        }
        check_content(bytes, Volume::of(job.tmp))?;
        Ok(list)
    }

    /// Leaves a file out, because git can't write it.
    pub(super) fn leave_out(&mut self, path: &GitPath, reason: &'static str) {
        self.left_out.push(path.as_bytes(), reason);
        self.entries = self.entries.saturating_sub(1);
    }

    /// Returns the length of the list in bytes. The index has about this length too.
    pub(super) fn len(&self) -> Result<u64, PublishError> {
        let list = self.path.metadata().map_err(PublishError::at(&self.path))?;
        Ok(list.len())
    }

    /// Returns the number of entries of the index.
    pub(super) fn entries(&self) -> u32 {
        self.entries
    }

    /// Returns an iterator over the runs, in order, which reads the list as it goes on.
    pub(super) fn runs(&self) -> Result<Runs<'_>, PublishError> {
        let file = File::open(&self.path).map_err(PublishError::at(&self.path))?;
        Ok(Runs {
            path: self.path.clone(),
            lines: BufReader::new(file),
            next: None,
            left_out: &self.left_out,
            misfits: Vec::new(),
        })
    }

    /// Returns the digest that identifies a run: of its entries and of the attributes, which
    /// together decide the bytes of its files.
    pub(super) fn key<'a>(&self, run: impl IntoIterator<Item = &'a TreeEntry>) -> Digest {
        // The number must be raised if the segments of a run are ever written in another way.
        let mut key = b"run 2".to_vec();
        key.extend_from_slice(self.attributes.as_bytes());
        for entry in run {
            entry.write_key(&mut key);
        }
        Digest::of(&key)
    }
}

/// Fails if the disk couldn't hold this many bytes even if it were empty.
///
/// A disk that is only full at the moment is no reason to publish without a work tree: it may have
/// room later.
fn check_content(bytes: u64, disk: Option<Volume>) -> Result<(), TreeSizeError> {
    match disk {
        Some(Volume { total: disk, .. }) if bytes > disk => {
            Err(TreeSizeError::Content { bytes, disk })
        }
        _ => Ok(()),
    }
}

/// An iterator over the runs of a list.
#[derive(Debug)]
pub(super) struct Runs<'a> {
    path: PathBuf,
    lines: BufReader<File>,
    /// An entry that has been read already but belongs to the next run.
    next: Option<TreeEntry>,
    /// The files that the list leaves out.
    left_out: &'a LeftOut,
    /// The files found so far that no filesystem can hold and that `left_out` lacks, each with the
    /// reason.
    misfits: Vec<(Vec<u8>, &'static str)>,
}

impl Runs<'_> {
    fn read_entry(&mut self) -> Result<Option<TreeEntry>, PublishError> {
        loop {
            let mut line = Vec::new();
            self.lines
                .read_until(0, &mut line)
                .map_err(PublishError::at(&self.path))?;
            let Some(line) = line.strip_suffix(&[0]) else {
                return Ok(None);
            };
            let line = TreeLine::parse(line)?;
            if self.left_out.has(line.path) {
                continue;
            }
            match line.misfit() {
                Some(reason) => self.misfits.push((line.path.to_vec(), reason)),
                None => return TreeEntry::of_line(&line).map(Some),
            }
        }
    }

    fn read_run(&mut self) -> Result<Vec<TreeEntry>, PublishError> {
        let (mut run, mut bytes) = (Vec::new(), 0);
        loop {
            let entry = match self.next.take() {
                Some(entry) => entry,
                None => match self.read_entry()? {
                    Some(entry) => entry,
                    None => return Ok(run),
                },
            };
            // A large file must be a run by itself: its data is a segment of its own, and a run has
            // at most one such segment.
            if entry.is_large() && !run.is_empty() {
                self.next = Some(entry);
                return Ok(run);
            }
            bytes += entry.blob_len;
            let is_end = entry.is_large() || entry.is_cut();
            run.push(entry);
            if is_end || run.len() >= MAX_RUN_FILES || bytes >= MAX_RUN_BYTES {
                return Ok(run);
            }
        }
    }
}

impl Iterator for Runs<'_> {
    type Item = Result<Vec<TreeEntry>, PublishError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.read_run() {
            Ok(run) if run.is_empty() => None,
            run => Some(run),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn runs(sizes: &[(String, u64)]) -> Vec<Vec<String>> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for (path, size) in sizes {
            write!(file, "100644 blob {} {size:>7}\t{path}\0", "1a".repeat(20)).unwrap();
        }
        let list = TreeList {
            path: file.path().to_owned(),
            entries: 0,
            attributes: Digest::of(b""),
            left_out: LeftOut::default(),
        };
        let paths = |run: Vec<TreeEntry>| run.iter().map(|entry| entry.path.to_string()).collect();
        list.runs()
            .unwrap()
            .map(|run| paths(run.unwrap()))
            .collect()
    }

    #[test]
    fn a_new_file_changes_one_run() {
        let mut sizes: Vec<_> = (10_000..12_000)
            .map(|number| (format!("f{number}"), 10))
            .collect();
        let before = runs(&sizes);
        sizes.insert(1000, ("f10999x".to_owned(), 10));

        let after = runs(&sizes);

        assert!((8..32).contains(&before.len()), "{} runs", before.len());
        let kept = before.iter().filter(|run| after.contains(run)).count();
        assert_eq!(kept, before.len() - 1);
    }

    #[test]
    fn a_large_file_is_a_run_by_itself() {
        let sizes = [("a", 1), ("b", LARGE_FILE_LEN), ("c", 1)];

        let runs = runs(&sizes.map(|(path, size)| (path.to_owned(), size)));

        assert!(runs.contains(&vec!["b".to_owned()]));
    }

    #[test]
    fn files_that_no_disk_holds_are_too_large() {
        let (total, free) = (1000, 10);
        let disk = || Some(Volume { total, free });

        assert!(check_content(1000, disk()).is_ok());
        assert!(check_content(1001, None).is_ok());
        let error = check_content(1001, disk()).unwrap_err().to_string();
        assert!(error.contains("1001 bytes"), "{error}");
    }

    #[test]
    fn parses_what_ls_tree_prints() {
        let oid = "1a".repeat(20);
        let line = format!("160000 commit {oid}       -\ta b\n\tc");

        let entry = TreeLine::parse(line.as_bytes()).unwrap();

        assert_eq!(entry.kind, TreeEntryKind::Submodule);
        assert_eq!(entry.path, b"a b\n\tc");
    }

    #[test]
    fn files_that_no_filesystem_can_have_are_misfits() {
        let oid = "1a".repeat(20);
        let directory = "d/".repeat(2000);
        for (mode, len, path, fits) in [
            ("100644", 0, "a".to_owned(), true),
            ("120000", 1, "a".to_owned(), true),
            ("120000", 4095, "a".to_owned(), true),
            ("100644", 1, "a".repeat(255), true),
            ("100644", 1, format!("{directory}{}", "a".repeat(95)), true),
            ("120000", 0, "a".to_owned(), false),
            ("120000", 4096, "a".to_owned(), false),
            ("100644", 1, "a".repeat(256), false),
            ("100644", 1, format!("{directory}{}", "a".repeat(96)), false),
        ] {
            let line = format!("{mode} blob {oid} {len:>7}\t{path}");
            let line = TreeLine::parse(line.as_bytes()).unwrap();
            assert_eq!(line.misfit().is_none(), fits, "{mode} {len} {}", path.len());
        }
    }
}
