//! The full layout: five packs for lazy reading, made from explicit lists of objects.
//!
//! | pack | objects |
//! | --- | --- |
//! | tip | the git trees and git blobs of HEAD |
//! | recent | the other git trees and git blobs of the newest commits |
//! | commits | all commits and tags |
//! | trees | all other git trees |
//! | history | all other git blobs |
//!
//! Each object is in one pack. Recent, trees and history are ordered by path: objects that are read
//! together, such as the versions of a file for `git blame`, are then stored together. Zstd also
//! compresses this order best: on git's repository, history takes 44.5 MB ordered by path and 51.8
//! MB ordered by age (2026-11).

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};

use cachewfs_format::{ObjectId, PackKind};

use super::PublishError;
use super::job::PublishJob;
use super::pack::{NewPack, pack_list};
use super::sort::sort_by_path;

/// At most this many bytes of a path, from its end, go to `git pack-objects` as a hint.
///
/// Git reads lines into a buffer of some 4,160 bytes and takes the rest of a longer line as another
/// object. The end of a path is enough, because git compares the last characters first.
const MAX_HINT_LEN: usize = 1024;

/// Packs all objects that the refs of the mirror reach. `has_head` says whether HEAD has a commit.
pub(super) fn full_layout(
    job: &PublishJob<'_>,
    has_head: bool,
) -> Result<Vec<NewPack>, PublishError> {
    let newest = list_newest(job, has_head)?;
    split_the_rest(job, &newest)?;
    // This set may have millions of ids, and packing needs memory of its own.
    drop(newest);
    for list in ["recent.list", "trees.list", "history.list"] {
        order_by_path(job, list)?;
    }
    let mut packs = Vec::new();
    for (kind, list) in [
        (PackKind::Tip, "tip.list"),
        (PackKind::Recent, "recent.list"),
        (PackKind::Commits, "commits.list"),
        (PackKind::Trees, "trees.list"),
        (PackKind::History, "history.list"),
    ] {
        job.check_stop()?;
        packs.extend(pack_list(job, kind, list)?);
        let path = job.tmp_path(list);
        std::fs::remove_file(&path).map_err(PublishError::at(&path))?;
    }
    Ok(packs)
}

/// Lists the objects that `git rev-list --objects` finds, as lines `<type> <oid> <path>`.
fn list_objects(
    job: &PublishJob<'_>,
    revisions: &[&str],
    list: &str,
) -> Result<BufReader<File>, PublishError> {
    let untyped = format!("{list}.untyped");
    job.git("rev-list")
        .args(["--objects"])
        .args(revisions)
        .output_to(job.create(&untyped)?)?;
    job.git("cat-file")
        .args([
            "--batch-check=%(objecttype) %(objectname) %(rest)",
            "--buffer",
        ])
        .input_file(job.open(&untyped)?)
        .output_to(job.create(list)?)?;
    let path = job.tmp_path(&untyped);
    std::fs::remove_file(&path).map_err(PublishError::at(&path))?;
    Ok(BufReader::new(job.open(list)?))
}

/// Writes the lists of the tip pack and of the recent pack. Returns the objects in them.
///
/// The tip list is in the order in which a checkout reads the objects.
fn list_newest(job: &PublishJob<'_>, has_head: bool) -> Result<HashSet<ObjectId>, PublishError> {
    let count = job.config.publish.tip_commits.to_string();
    let mut newest = HashSet::new();
    let head: &[&str] = if has_head {
        &["-1", "HEAD"]
    } else {
        &["-n", "0", "--all"]
    };
    for (list, revisions) in [
        ("tip.list", head),
        ("recent.list", &["-n", &count, "--all"]),
    ] {
        let mut list = ListWriter::create(job, list)?;
        push_new(job, (revisions, &mut newest), &mut list)?;
        list.finish()?;
    }
    Ok(newest)
}

/// Adds the git trees and git blobs that `git rev-list --objects` finds to `newest`. Objects that
/// are new in `newest` are also added to `list`.
fn push_new(
    job: &PublishJob<'_>,
    (revisions, newest): (&[&str], &mut HashSet<ObjectId>),
    list: &mut ListWriter<'_>,
) -> Result<(), PublishError> {
    let mut objects = list_objects(job, revisions, "newest.typed")?;
    while let Some(object) = TypedObject::read(job, &mut objects)? {
        let is_wanted = matches!(object.kind, ObjectKind::Tree | ObjectKind::Blob);
        if is_wanted && newest.insert(object.oid) {
            list.push(&object)?;
        }
    }
    Ok(())
}

/// Writes the lists of all objects that are in neither the tip nor the recent pack, by type.
fn split_the_rest(job: &PublishJob<'_>, newest: &HashSet<ObjectId>) -> Result<(), PublishError> {
    let mut objects = list_objects(job, &["--all"], "all.typed")?;
    let mut commits = ListWriter::create(job, "commits.list")?;
    let mut trees = ListWriter::create(job, "trees.list")?;
    let mut blobs = ListWriter::create(job, "history.list")?;
    while let Some(object) = TypedObject::read(job, &mut objects)? {
        if newest.contains(&object.oid) {
            continue;
        }
        match object.kind {
            ObjectKind::Commit | ObjectKind::Tag => commits.push(&object)?,
            ObjectKind::Tree => trees.push(&object)?,
            ObjectKind::Blob => blobs.push(&object)?,
        }
    }
    commits.finish()?;
    trees.finish()?;
    blobs.finish()
}

fn order_by_path(job: &PublishJob<'_>, list: &str) -> Result<(), PublishError> {
    let unordered = job.open(list)?;
    let path = job.tmp_path(list);
    std::fs::remove_file(&path).map_err(PublishError::at(&path))?;
    let mut list = ListWriter::create(job, list)?;
    sort_by_path(unordered, &mut list.file, job.tmp).map_err(PublishError::at(job.tmp))?;
    list.finish()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ObjectKind {
    Commit,
    Tree,
    Blob,
    Tag,
}

/// One line of a typed list.
#[derive(Debug)]
struct TypedObject {
    kind: ObjectKind,
    oid: ObjectId,
    path: Vec<u8>,
}

impl TypedObject {
    fn read(
        job: &PublishJob<'_>,
        lines: &mut BufReader<File>,
    ) -> Result<Option<Self>, PublishError> {
        let mut line = Vec::new();
        lines
            .read_until(b'\n', &mut line)
            .map_err(PublishError::at(job.tmp))?;
        if line.is_empty() {
            return Ok(None);
        }
        Self::parse(&line)
            .map(Some)
            .ok_or_else(|| PublishError::bad_output(&line))
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.strip_suffix(b"\n")?.splitn(3, |&byte| byte == b' ');
        let kind = match fields.next()? {
            b"commit" => ObjectKind::Commit,
            b"tree" => ObjectKind::Tree,
            b"blob" => ObjectKind::Blob,
            b"tag" => ObjectKind::Tag,
            _ => return None,
        };
        let oid = ObjectId::parse(std::str::from_utf8(fields.next()?).ok()?).ok()?;
        Some(Self {
            kind,
            oid,
            path: fields.next().unwrap_or_default().to_owned(),
        })
    }
}

struct ListWriter<'a> {
    file: BufWriter<File>,
    job: &'a PublishJob<'a>,
}

impl<'a> ListWriter<'a> {
    fn create(job: &'a PublishJob<'a>, name: &str) -> Result<Self, PublishError> {
        Ok(Self {
            file: BufWriter::new(job.create(name)?),
            job,
        })
    }

    fn push(&mut self, object: &TypedObject) -> Result<(), PublishError> {
        let io = PublishError::at(self.job.tmp);
        let skipped = object.path.len().saturating_sub(MAX_HINT_LEN);
        let hint = object.path.get(skipped..).unwrap_or_default();
        write!(self.file, "{} ", object.oid)
            .and_then(|()| self.file.write_all(hint))
            .and_then(|()| self.file.write_all(b"\n"))
            .map_err(io)
    }

    fn finish(mut self) -> Result<(), PublishError> {
        self.file.flush().map_err(PublishError::at(self.job.tmp))
    }
}
