//! Increments: packs of the objects that are new since the previous snapshot.
//!
//! Increments are merged among themselves, so that there are only a few. If they take too much of
//! the archive, all packs are made from scratch.

use std::fmt::Write as _;

use cachewfs_format::{Manifest, PackKind, PublishedPack};

use super::PublishError;
use super::job::PublishJob;
use super::pack::{NewPack, pack_list, pack_new};
use super::retain::existing_objects;
use crate::store::{Store, read_file, wait};

/// At most this many increments are in a snapshot. With the five packs of the full layout, a
/// workstation has eight packs at most.
const MAX_INCREMENTS: usize = 3;

/// The plan for the packs of the previous snapshot.
#[derive(Debug)]
pub(super) enum PackPlan {
    /// Keep all packs: there are no new objects.
    Keep,
    /// Add a pack that replaces the newest `replaces` increments.
    Add { pack: NewPack, replaces: usize },
    /// Make all packs from scratch: increments take too much of the archive or can't be merged.
    Relayout,
}

/// Packs the objects that are new in the mirror since `previous`.
pub(super) fn increment(
    job: &PublishJob<'_>,
    store: &Store,
    previous: &Manifest,
) -> Result<PackPlan, PublishError> {
    // Tips that the mirror lacks are left out: git would fail on them.
    let mut known = String::new();
    for (oid, _) in existing_objects(job.git, job.mirror, &previous.tips)? {
        // Writing to a string can't fail.
        writeln!(known, "^{oid}").ok();
    }
    let Some(pack) = pack_new(job, &known)? else {
        return Ok(PackPlan::Keep);
    };
    let increments: Vec<&PublishedPack> = previous
        .packs
        .iter()
        .filter(|pack| pack.kind == PackKind::Increment)
        .collect();
    let sizes: Vec<u64> = increments.iter().map(|pack| pack.pack.size).collect();
    let new = pack.len()?;
    let total: u64 = previous.packs.iter().map(|pack| pack.pack.size).sum();
    // Increments are not ordered by path as the packs of a full layout are. If they take too much
    // of the archive, reading history fetches more than it should, and a full layout is worth its
    // time.
    let share = (sizes.iter().sum::<u64>() + new) as f64 / (total + new) as f64;
    if share > job.config.publish.relayout_share {
        return Ok(PackPlan::Relayout);
    }
    let replaces = merge_count(&sizes, new);
    if replaces == 0 {
        return Ok(PackPlan::Add { pack, replaces });
    }
    let merged: Vec<_> = increments.into_iter().take(replaces).collect();
    match merge(job, store, previous, (pack, &merged)) {
        Ok(Some(pack)) => Ok(PackPlan::Add { pack, replaces }),
        // Merging packs objects out of the mirror, which may have lost objects of an old increment
        // after their retention ended.
        Ok(None) | Err(PublishError::Git(crate::mirror::GitError::Failed { .. })) => {
            Ok(PackPlan::Relayout)
        }
        Err(error) => Err(error),
    }
}

/// Returns how many increments, newest first, are merged with a new increment of `new` bytes.
///
/// Merging goes on while the next increment is less than twice as long as the merged ones together,
/// or there are too many increments. The sizes then grow geometrically, so each object is copied
/// only a few times.
fn merge_count(sizes: &[u64], new: u64) -> usize {
    let mut merged = new;
    let mut count = 0;
    for &size in sizes {
        let too_many = sizes.len() - count + 1 > MAX_INCREMENTS;
        if size >= merged.saturating_mul(2) && !too_many {
            break;
        }
        merged += size;
        count += 1;
    }
    count
}

/// Packs the objects of `pack` and of published increments into one pack. `increments` are newest
/// first.
fn merge(
    job: &PublishJob<'_>,
    store: &Store,
    previous: &Manifest,
    (pack, increments): (NewPack, &[&PublishedPack]),
) -> Result<Option<NewPack>, PublishError> {
    let mut indexes = vec![pack.read_index()?];
    for increment in increments {
        indexes.push(wait(read_file(store, &previous.repo, &increment.index))?);
    }
    let format = job.git("rev-parse").args(["--show-object-format"]).text()?;
    let mut list = String::new();
    for index in indexes {
        let lines = job
            .git("show-index")
            .args([format!("--object-format={format}")])
            .input(index)
            .text()?;
        for line in lines.lines() {
            let oid = line.split(' ').nth(1);
            let oid = oid.ok_or_else(|| PublishError::bad_output(line.as_bytes()))?;
            writeln!(list, "{oid}").ok();
        }
    }
    let io = PublishError::at(job.tmp);
    std::io::Write::write_all(&mut job.create("merge.list")?, list.as_bytes()).map_err(io)?;
    pack_list(job, PackKind::Increment, "merge.list")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_geometrically() {
        assert_eq!(merge_count(&[], 10), 0);
        assert_eq!(merge_count(&[20], 10), 0);
        assert_eq!(merge_count(&[19], 10), 1);
        assert_eq!(merge_count(&[10, 39, 200], 10), 2);
        assert_eq!(merge_count(&[10, 40, 200], 10), 1);
    }

    #[test]
    fn never_leaves_more_than_the_limit() {
        let sizes = [1000, 10_000, 100_000];

        assert_eq!(merge_count(&sizes, 1), 1);
    }
}
