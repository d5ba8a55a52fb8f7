//! Keeps commits that upstream dropped, so that published objects stay available for a time.
//!
//! A hidden ref in the mirror keeps each dropped tip, with all that it reaches. Later snapshots
//! therefore have these objects, until the configured time (`retain_orphans`) is over.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cachewfs_format::ObjectId;

use super::PublishError;
use super::refs::Refs;
use crate::mirror::Git;

/// The namespace of the hidden refs. The age of a ref's file says how long the tip has been hidden.
pub(crate) const RETAINED: &str = "refs/cachewfs/retained/";

/// Creates hidden refs for tips of the previous snapshot that no ref reaches any more, and deletes
/// hidden refs that are older than `keep`.
///
/// Returns whether any ref changed. If so, the caller must read the refs again.
pub(super) fn retain_orphans(
    git: &Git,
    mirror: &Path,
    (previous, refs): (&[ObjectId], &Refs),
    keep: Duration,
) -> Result<bool, PublishError> {
    let present: HashSet<_> = refs.tips().into_iter().collect();
    let gone: Vec<_> = previous
        .iter()
        .copied()
        .filter(|tip| !present.contains(tip))
        .collect();
    let orphans = orphans(git, mirror, &gone)?;
    let mut commands: Vec<String> = orphans
        .iter()
        .map(|orphan| format!("create {RETAINED}{orphan} {orphan}\n"))
        .collect();
    for each in &refs.all {
        let name = String::from_utf8_lossy(&each.name);
        if name.starts_with(RETAINED) && is_older(&mirror.join(&*name), keep) {
            commands.push(format!("delete {name} {}\n", each.target));
        }
    }
    if commands.is_empty() {
        return Ok(false);
    }
    // One `update-ref` is one transaction: either all these refs change or none.
    git.in_repository(mirror, "update-ref")
        .args(["--stdin"])
        .input(commands.concat())
        .effect()?;
    Ok(true)
}

/// Creates hidden refs for `tips`.
pub(crate) fn retain<'a>(
    git: &Git,
    mirror: &Path,
    tips: impl Iterator<Item = &'a ObjectId>,
) -> Result<(), PublishError> {
    let commands: Vec<String> = tips
        .map(|tip| format!("create {RETAINED}{tip} {tip}\n"))
        .collect();
    git.in_repository(mirror, "update-ref")
        .args(["--stdin"])
        .input(commands.concat())
        .effect()?;
    Ok(())
}

/// Returns the objects of `gone` that the mirror still has and that no ref reaches.
fn orphans(git: &Git, mirror: &Path, gone: &[ObjectId]) -> Result<Vec<ObjectId>, PublishError> {
    let mut commits = Vec::new();
    let mut orphans = Vec::new();
    for (oid, kind) in existing_objects(git, mirror, gone)? {
        // The lost ref pointed to a tag, a tree or a git blob. To find out whether another ref
        // reaches it takes a walk over all objects; a hidden ref costs less.
        if kind == "commit" {
            commits.push(oid);
        } else {
            orphans.push(oid);
        }
    }
    if commits.is_empty() {
        return Ok(orphans);
    }
    let input = oid_lines(&commits);
    let unreachable = git
        .in_repository(mirror, "rev-list")
        .args(["--stdin", "--not", "--all"])
        .input(input)
        .output()?;
    let unreachable: HashSet<_> = unreachable.split(|&byte| byte == b'\n').collect();
    orphans.extend(
        commits
            .into_iter()
            .filter(|commit| unreachable.contains(commit.to_string().as_bytes())),
    );
    Ok(orphans)
}

/// Returns the objects of `oids` that the mirror has, with their types.
pub(super) fn existing_objects(
    git: &Git,
    mirror: &Path,
    oids: &[ObjectId],
) -> Result<Vec<(ObjectId, String)>, PublishError> {
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    let input = oid_lines(oids);
    let output = git
        .in_repository(mirror, "cat-file")
        .args(["--batch-check=%(objectname) %(objecttype)"])
        .input(input)
        .text()?;
    let mut found = Vec::new();
    for line in output.lines() {
        let (oid, kind) = line
            .split_once(' ')
            .ok_or_else(|| PublishError::bad_output(line.as_bytes()))?;
        if kind != "missing" {
            found.push((ObjectId::parse(oid)?, kind.to_owned()));
        }
    }
    Ok(found)
}

/// Returns the ids, one per line.
pub(super) fn oid_lines(oids: &[ObjectId]) -> String {
    oids.iter()
        .map(ObjectId::to_string)
        .collect::<Vec<_>>()
        .join("\n")
        + "\n"
}

/// Returns whether the file of a ref is older than `keep`. A packed ref has no file and is kept.
fn is_older(path: &Path, keep: Duration) -> bool {
    let modified = path.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| {
        SystemTime::now()
            .duration_since(time)
            .is_ok_and(|age| age > keep)
    })
}
