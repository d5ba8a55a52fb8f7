//! The full layout: four packs for lazy reading, made from explicit lists of objects.
//!
//! Tip, commits, trees and history hold each object once; `DESIGN.md` section 5 says why.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};

use cachewfs_format::{ObjectId, PackKind};

use super::PublishError;
use super::job::Job;
use super::pack::{NewPack, pack_list};
use super::sort::sort_by_path;

/// The first of so many parts of the history keeps git's order, newest first, which is best for
/// checking out what is not very old; the rest is ordered by path, which is best for `blame`.
const RECENT_PARTS: usize = 4;

/// Packs everything that the refs of the mirror reach.
pub(super) fn full_layout(job: &Job<'_>) -> Result<Vec<NewPack>, PublishError> {
    let tip = list_tip(job)?;
    split_the_rest(job, &tip)?;
    drop(tip);
    order_trees(job)?;
    order_history(job)?;
    let mut packs = Vec::new();
    for (kind, list) in [
        (PackKind::Tip, "tip.list"),
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

/// Lists what `git rev-list --objects` finds, with types, as lines `<type> <oid> <path>`.
fn list_objects(
    job: &Job<'_>,
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

/// Writes the list of the tip pack: HEAD's git trees and git blobs, which a checkout needs, in one
/// piece; then those of the newest commits by path, so that zstd finds the versions of a file in
/// one chunk.
fn list_tip(job: &Job<'_>) -> Result<HashSet<ObjectId>, PublishError> {
    let count = job.config.tip_commits.to_string();
    let mut tip = HashSet::new();
    let mut list = ListWriter::create(job, "tip.list")?;
    push_new(job, (&["-1", "HEAD"], &mut tip), &mut list)?;
    let mut newest = ListWriter::create(job, "tip.unordered")?;
    push_new(job, (&["-n", &count, "--all"], &mut tip), &mut newest)?;
    newest.finish()?;
    sort_by_path(job.open("tip.unordered")?, &mut list.file, job.tmp)
        .map_err(PublishError::at(job.tmp))?;
    list.finish()?;
    Ok(tip)
}

/// Adds what `git rev-list --objects` finds, but for tags, to `tip`, and to `list` what is new.
fn push_new(
    job: &Job<'_>,
    (revisions, tip): (&[&str], &mut HashSet<ObjectId>),
    list: &mut ListWriter<'_>,
) -> Result<(), PublishError> {
    let mut objects = list_objects(job, revisions, "tip.typed")?;
    while let Some(object) = Object::read(job, &mut objects)? {
        if object.kind != ObjectKind::Tag && tip.insert(object.oid) {
            list.push(&object)?;
        }
    }
    Ok(())
}

/// Writes the lists of what is not in the tip pack, by type.
fn split_the_rest(job: &Job<'_>, tip: &HashSet<ObjectId>) -> Result<(), PublishError> {
    let mut objects = list_objects(job, &["--all"], "all.typed")?;
    let mut commits = ListWriter::create(job, "commits.list")?;
    let mut trees = ListWriter::create(job, "trees.unordered")?;
    let mut blobs = ListWriter::create(job, "history.unordered")?;
    while let Some(object) = Object::read(job, &mut objects)? {
        if tip.contains(&object.oid) {
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

fn order_trees(job: &Job<'_>) -> Result<(), PublishError> {
    let mut list = ListWriter::create(job, "trees.list")?;
    sort_by_path(job.open("trees.unordered")?, &mut list.file, job.tmp)
        .map_err(PublishError::at(job.tmp))?;
    list.finish()
}

fn order_history(job: &Job<'_>) -> Result<(), PublishError> {
    let io = || PublishError::at(job.tmp);
    let lines = BufReader::new(job.open("history.unordered")?);
    let count = lines.split(b'\n').count();
    let mut recent = ListWriter::create(job, "history.list")?;
    let mut old = ListWriter::create(job, "history.old")?;
    let lines = BufReader::new(job.open("history.unordered")?);
    for (number, line) in lines.split(b'\n').enumerate() {
        let mut line = line.map_err(io())?;
        line.push(b'\n');
        let list = if number < count / RECENT_PARTS {
            &mut recent
        } else {
            &mut old
        };
        list.file.write_all(&line).map_err(io())?;
    }
    old.finish()?;
    sort_by_path(job.open("history.old")?, &mut recent.file, job.tmp).map_err(io())?;
    recent.finish()
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
struct Object {
    kind: ObjectKind,
    oid: ObjectId,
    path: Vec<u8>,
}

impl Object {
    fn read(job: &Job<'_>, lines: &mut BufReader<File>) -> Result<Option<Self>, PublishError> {
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
    job: &'a Job<'a>,
}

impl<'a> ListWriter<'a> {
    fn create(job: &'a Job<'a>, name: &str) -> Result<Self, PublishError> {
        Ok(Self {
            file: BufWriter::new(job.create(name)?),
            job,
        })
    }

    fn push(&mut self, object: &Object) -> Result<(), PublishError> {
        let io = PublishError::at(self.job.tmp);
        write!(self.file, "{} ", object.oid)
            .and_then(|()| self.file.write_all(&object.path))
            .and_then(|()| self.file.write_all(b"\n"))
            .map_err(io)
    }

    fn finish(mut self) -> Result<(), PublishError> {
        self.file.flush().map_err(PublishError::at(self.job.tmp))
    }
}
