//! Deleting snapshots that are no longer kept, and segments that no manifest names.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cachewfs_format::limits::MAX_REPLACED;
use cachewfs_format::{Manifest, Pointer, RepoName, SegmentId, SnapshotId};

use super::key::{Key, Object, Part};
use super::tier::Listed;
use super::{Store, StoreError};

impl Store {
    /// Deletes all manifests but the current and the `keep` newest, and all segments that no
    /// manifest names; nothing that was written, or current, within `grace`. Gives the number of
    /// segments deleted: none where others may publish.
    ///
    /// Others may publish `repo` at the same time, as long as that takes them less than `grace`. The
    /// manifests go first: a crash in between leaves segments without a manifest, which the next call deletes.
    pub(crate) fn collect(
        &self,
        repo: &RepoName,
        current: &Pointer,
        (keep, grace): (usize, Duration),
    ) -> Result<usize, StoreError> {
        let (tier, shelf) = (self.tier(), self.shelf(repo));
        if !tier.may_delete() {
            return Ok(0);
        }
        let _hold = tier.hold_for_deleting(&shelf)?;
        let now = SystemTime::now();
        let is_old = |since: SystemTime| now.duration_since(since).is_ok_and(|age| age > grace);
        let snapshots = newest_first(current, &tier.list(&shelf, Part::Manifests)?);
        let mut kept = Vec::new();
        for (index, (id, since)) in snapshots.into_iter().enumerate() {
            if index < keep || id == current.snapshot || !is_old(since) {
                kept.push(id);
            } else {
                tier.delete(&Key::manifest(&shelf, id))?;
                self.has_changed();
            }
        }
        let mut named = HashSet::new();
        for id in kept {
            if let Some((manifest, _)) = self.manifest(repo, id)? {
                add_segments(&manifest, &mut named);
            }
        }
        let mut deleted = 0;
        for Listed { object, stat } in tier.list(&shelf, Part::Segments)? {
            let is_named = matches!(object, Object::Segment(id) if named.contains(&id));
            if !is_named && is_old(stat.stored_at) {
                tier.delete(&Key::new(&shelf, object))?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// Whether [`Store::delete`] is allowed.
    pub(crate) fn may_delete(&self) -> bool {
        self.tier().may_delete()
    }

    /// Deletes all that is published of `repo`: first of all the pointer, so that nothing is half there.
    pub(crate) fn delete(&self, repo: &RepoName) -> Result<(), StoreError> {
        if !self.may_delete() {
            return Err(StoreError::MayNotDelete);
        }
        let deleted = self.tier().delete_shelf(&self.shelf(repo));
        self.has_changed();
        Ok(deleted?)
    }

    /// All snapshots that are kept: the current one, then those that were current last.
    pub(crate) fn newest_snapshots(&self, repo: &RepoName) -> Result<Vec<SnapshotId>, StoreError> {
        let Some(current) = self.pointer(repo)? else {
            return Ok(Vec::new());
        };
        let listed = self.tier().list(&self.shelf(repo), Part::Manifests)?;
        let snapshots = newest_first(&current, &listed).into_iter();
        Ok(snapshots.map(|(id, _)| id).collect())
    }
}

/// The snapshots in the order in which they were current last, the current one first, each with the
/// time since when it isn't.
///
/// The pointer knows both. What it doesn't know was current before all that it does, or never, because
/// its publish lost a race, or before pointers remembered: there the time is that of the manifest. If
/// the pointer remembers as many as it can, no snapshot counts as older than the oldest of these.
fn newest_first(current: &Pointer, listed: &[Listed]) -> Vec<(SnapshotId, SystemTime)> {
    let time = |at| UNIX_EPOCH + Duration::from_secs(at);
    let replaced = current.replaced.iter().enumerate();
    let replaced: HashMap<_, _> = replaced
        .map(|(rank, replaced)| (replaced.snapshot, (rank + 1, time(replaced.at))))
        .collect();
    let is_full = current.replaced.len() >= MAX_REPLACED;
    let oldest = current.replaced.last().filter(|_| is_full);
    let oldest = oldest.map(|oldest| time(oldest.at));
    let mut snapshots: Vec<_> = listed
        .iter()
        .filter_map(|listed| {
            let Object::Manifest(id) = listed.object else {
                return None;
            };
            let written = listed.stat.stored_at;
            let (rank, since) = if id == current.snapshot {
                (0, written)
            } else {
                let unknown = || (usize::MAX, oldest.map_or(written, |at| at.max(written)));
                replaced.get(&id).copied().unwrap_or_else(unknown)
            };
            Some((rank, std::cmp::Reverse(written), id, since))
        })
        .collect();
    snapshots.sort_unstable();
    let of = |(_, _, id, since)| (id, since);
    snapshots.into_iter().map(of).collect()
}

/// All that a manifest names, in its archives and for the next publish to use again.
fn add_segments(manifest: &Manifest, named: &mut HashSet<SegmentId>) {
    let mut add = |id: SegmentId| {
        named.insert(id);
    };
    for layout in manifest.archives.values() {
        layout
            .segments
            .iter()
            .chain([&layout.tail])
            .for_each(|segment| add(segment.id));
    }
    for pack in &manifest.packs {
        for file in [&pack.pack, &pack.index, &pack.reverse_index] {
            add(file.segment.id);
        }
    }
    for file in &manifest.commit_graphs {
        add(file.segment.id);
    }
    for object in &manifest.lfs_objects {
        add(object.header.segment.id);
        add(object.data.segment.id);
    }
    for run in &manifest.runs {
        let files = [
            Some(&run.work_tree),
            run.large_file.as_ref(),
            Some(&run.index_part),
        ];
        files
            .into_iter()
            .flatten()
            .for_each(|file| add(file.segment.id));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cachewfs_format::{Digest, ObjectId, Replaced};

    use super::*;
    use crate::store::tier::Stat;

    fn id(byte: u8) -> SnapshotId {
        SnapshotId::first(ObjectId::from_bytes(&[byte; 20]).unwrap())
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn listed(byte: u8, seconds: u64) -> Listed {
        let stat = Stat {
            len: 1,
            stored_at: at(seconds),
        };
        let object = Object::Manifest(id(byte));
        Listed { object, stat }
    }

    fn pointer(current: u8, replaced: Vec<Replaced>) -> Pointer {
        Pointer {
            version: Pointer::VERSION,
            snapshot: id(current),
            manifest: Digest::of(b"manifest"),
            archives: BTreeMap::new(),
            published_at: 100,
            replaced,
        }
    }

    #[test]
    fn the_pointer_knows_the_order_and_since_when() {
        let replaced = vec![(id(2), 90).into(), (id(1), 80).into()];
        let current = pointer(3, replaced);
        // Copied in another order than published.
        let listed = [listed(1, 99), listed(3, 5), listed(2, 98)];

        let snapshots = newest_first(&current, &listed);

        assert_eq!(
            snapshots,
            [(id(3), at(5)), (id(2), at(90)), (id(1), at(80))]
        );
    }

    #[test]
    fn what_the_pointer_does_not_know_comes_last_by_its_own_time() {
        let current = pointer(3, vec![(id(2), 90).into()]);
        let listed = [listed(8, 20), listed(2, 1), listed(9, 30), listed(3, 2)];

        let snapshots = newest_first(&current, &listed);

        let ids: Vec<_> = snapshots.iter().map(|&(id, _)| id).collect();
        assert_eq!(ids, [id(3), id(2), id(9), id(8)]);
        assert_eq!(snapshots[2].1, at(30));
    }

    #[test]
    fn what_a_full_pointer_forgot_is_no_older_than_what_it_knows() {
        let replaced = vec![(id(2), 90).into(); MAX_REPLACED];
        let current = pointer(3, replaced);

        let snapshots = newest_first(&current, &[listed(9, 30)]);

        assert_eq!(snapshots, [(id(9), at(90))]);
    }
}
