//! The list of LFS objects that the work tree of a commit needs.
//!
//! Attributes say which files are kept with LFS. A file that only looks like a pointer is an
//! ordinary file to git, and upstream has no LFS object for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};

use cachewfs_format::ObjectId;

use super::LfsOid;
use super::pointer::{LfsPointer, MAX_POINTER_LEN};
use crate::mirror::{GitCommand, GitError};
use crate::publish::PublishError;
use crate::publish::job::PublishJob;
use crate::publish::tree::{TreeEntry, TreeEntryKind};
use crate::publish::tree_size::check_tree_size;

/// Returns the LFS objects that the work tree of `commit` needs, with their sizes.
///
/// Empty objects are left out, because git-lfs creates empty files without fetching anything.
pub(super) fn wanted_objects(
    job: &PublishJob<'_>,
    commit: &ObjectId,
) -> Result<BTreeMap<LfsOid, u64>, PublishError> {
    check_tree_size(job, &commit.to_string())?;
    if !mentions_lfs(job, commit)? {
        return Ok(BTreeMap::new());
    }
    let small = list_small_files(job, commit)?;
    job.check_stop()?;
    let kept_with_lfs = filter_by_attribute(job, commit, small)?;
    job.check_stop()?;
    read_pointers(job, &kept_with_lfs)
}

/// Returns whether any `.gitattributes` names the filter. Most repositories need no further step.
fn mentions_lfs(job: &PublishJob<'_>, commit: &ObjectId) -> Result<bool, PublishError> {
    let grep = job
        .git("grep")
        .args(["-q", "-F", "-e", "filter=lfs"])
        .args([commit.to_string().as_str(), "--", "*.gitattributes"])
        .effect();
    match grep {
        Err(GitError::Failed { status, .. }) if status.code() == Some(1) => Ok(false),
        found => Ok(found.map(|()| true)?),
    }
}

/// Writes the paths of all files that are short enough to be pointers to the file `lfs-paths`.
/// Returns their git blobs, in the order of the paths.
fn list_small_files(
    job: &PublishJob<'_>,
    commit: &ObjectId,
) -> Result<Vec<ObjectId>, PublishError> {
    job.git("ls-tree")
        .args(["-r", "-z", "-l", "--full-tree", &commit.to_string()])
        .output_to(job.create("lfs-tree")?)?;
    let mut tree = BufReader::new(job.open("lfs-tree")?);
    let mut paths = BufWriter::new(job.create("lfs-paths")?);
    let io = || PublishError::at(job.tmp);
    let mut blobs = Vec::new();
    while let Some(line) = read_field(job, &mut tree)? {
        let Some(entry) = TreeEntry::parse_fitting(&line)? else {
            continue;
        };
        let is_file = matches!(entry.kind, TreeEntryKind::File | TreeEntryKind::Executable);
        if is_file && (1..MAX_POINTER_LEN).contains(&entry.blob_len) {
            paths.write_all(entry.path.as_bytes()).map_err(io())?;
            paths.write_all(&[0]).map_err(io())?;
            blobs.push(entry.oid);
        }
    }
    paths.flush().map_err(io())?;
    Ok(blobs)
}

/// Returns those of `blobs` whose paths have the attribute `filter=lfs`. The paths are in the file
/// `lfs-paths`.
fn filter_by_attribute(
    job: &PublishJob<'_>,
    commit: &ObjectId,
    blobs: Vec<ObjectId>,
) -> Result<Vec<ObjectId>, PublishError> {
    // With an index of its own, git reads the `.gitattributes` of this commit (`--cached`), and the
    // mirror isn't changed.
    let with_index = |command: GitCommand| {
        let index = job.tmp_path("lfs-index");
        command.variable("GIT_INDEX_FILE", index)
    };
    with_index(job.git("read-tree"))
        .args([commit.to_string()])
        .effect()?;
    with_index(job.git("check-attr"))
        .args(["--cached", "-z", "--stdin", "filter"])
        .input_file(job.open("lfs-paths")?)
        .output_to(job.create("lfs-attributes")?)?;
    let mut attributes = BufReader::new(job.open("lfs-attributes")?);
    let mut kept = Vec::new();
    for blob in blobs {
        // Git prints three fields: the path, the name of the attribute, its value.
        let mut next = || {
            let field = read_field(job, &mut attributes)?;
            field.ok_or_else(|| PublishError::bad_output(b"the end of attributes"))
        };
        next()?;
        next()?;
        if next()? == b"lfs" {
            kept.push(blob);
        }
    }
    Ok(kept)
}

/// Reads git blobs. Returns the LFS objects of the blobs that are pointers, with their sizes.
fn read_pointers(
    job: &PublishJob<'_>,
    blobs: &[ObjectId],
) -> Result<BTreeMap<LfsOid, u64>, PublishError> {
    let mut lines = String::new();
    for blob in blobs {
        lines.push_str(&blob.to_string());
        lines.push('\n');
    }
    job.git("cat-file")
        .args(["--batch", "--buffer"])
        .input(lines)
        .output_to(job.create("lfs-pointers")?)?;
    let mut output = BufReader::new(job.open("lfs-pointers")?);
    let io = || PublishError::at(job.tmp);
    let mut wanted = BTreeMap::new();
    for _ in blobs {
        let mut head = Vec::new();
        output.read_until(b'\n', &mut head).map_err(io())?;
        let bad = || PublishError::bad_output(&head);
        // <oid> blob <length>
        let text = std::str::from_utf8(&head).map_err(|_| bad())?;
        let len = text.trim().rsplit_once(" blob ").ok_or_else(bad)?.1;
        let len: u64 = len.parse().map_err(|_| bad())?;
        let mut content = Vec::new();
        let with_newline = len.min(MAX_POINTER_LEN) + 1;
        (&mut output)
            .take(with_newline)
            .read_to_end(&mut content)
            .map_err(io())?;
        content.pop();
        if let Some(LfsPointer { oid, size }) = LfsPointer::parse(&content)
            && size > 0
        {
            wanted.insert(oid, size);
        }
    }
    Ok(wanted)
}

/// Reads the bytes up to the next NUL. Returns `None` at the end.
fn read_field(
    job: &PublishJob<'_>,
    from: &mut BufReader<File>,
) -> Result<Option<Vec<u8>>, PublishError> {
    let mut field = Vec::new();
    from.read_until(0, &mut field)
        .map_err(PublishError::at(job.tmp))?;
    Ok((field.pop() == Some(0)).then_some(field))
}
