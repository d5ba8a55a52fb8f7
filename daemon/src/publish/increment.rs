//! Increments: what is new since the previous snapshot, compacted among themselves.

use std::fmt::Write as _;

use cachewfs_format::{Manifest, PackKind, PublishedPack};

use super::PublishError;
use super::job::PublishJob;
use super::pack::{NewPack, pack_list, pack_new};
use super::retain::existing_objects;
use crate::store::{Store, read_file};

/// With the five packs of the layout, a workstation sees eight at most.
const MAX_INCREMENTS: usize = 3;

/// What becomes of the packs of the previous snapshot.
#[derive(Debug)]
pub(super) enum PackPlan {
    /// All stay, and nothing is new.
    Keep,
    /// The new pack takes the place of the newest `replaces` increments.
    Add { pack: NewPack, replaces: usize },
    /// Increments have become too much of the archive, or can't be merged: lay all out anew.
    Relayout,
}

/// Packs what is new in the mirror since `previous`.
pub(super) fn increment(
    job: &PublishJob<'_>,
    store: &Store,
    previous: &Manifest,
) -> Result<PackPlan, PublishError> {
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
    let share = (sizes.iter().sum::<u64>() + new) as f64 / (total + new) as f64;
    if share > job.config.relayout_share {
        return Ok(PackPlan::Relayout);
    }
    let replaces = merge_count(&sizes, new);
    if replaces == 0 {
        return Ok(PackPlan::Add { pack, replaces });
    }
    let merged: Vec<_> = increments.into_iter().take(replaces).collect();
    match merge(job, store, previous, (pack, &merged)) {
        Ok(Some(pack)) => Ok(PackPlan::Add { pack, replaces }),
        // Objects whose retention ended may be gone from the mirror.
        Ok(None) | Err(PublishError::Git(crate::mirror::GitError::Failed { .. })) => {
            Ok(PackPlan::Relayout)
        }
        Err(error) => Err(error),
    }
}

/// How many of the increments, newest first, a new one of `new` bytes is merged with: while the
/// next is less than twice as long as what is merged so far, or there are too many.
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

/// Packs the objects of `pack` and of published increments together, newest first.
fn merge(
    job: &PublishJob<'_>,
    store: &Store,
    previous: &Manifest,
    (pack, increments): (NewPack, &[&PublishedPack]),
) -> Result<Option<NewPack>, PublishError> {
    let mut indexes = vec![pack.read_index()?];
    for increment in increments {
        indexes.push(read_file(store, &previous.repo, &increment.index)?);
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
