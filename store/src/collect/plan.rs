//! Decides which snapshots and segments are kept and which may be deleted. No I/O.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use cachewfs_base::duration;
use cachewfs_format::limits::MAX_REPLACED;
use cachewfs_format::{Pointer, SegmentId, SnapshotId};
use serde::{Deserialize, Serialize};

use crate::objects::Listed;

/// The `[keep]` section of the configuration: how much is kept beside the current snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {
    /// At least this many snapshots of a repository keep their immutable URL, the current one
    /// included; at least 1. Default `20`.
    pub snapshots: usize,
    /// Snapshots are also kept for this long after they were replaced or, if the pointer doesn't
    /// know them, written. Default `1day`.
    #[serde(with = "duration")]
    pub age: Duration,
    /// Segments that no snapshot names, and manifests that the pointer doesn't know, are kept for
    /// at least this long after they were stored: a publish may be about to name them. The time
    /// doesn't begin again when the last snapshot of a segment is deleted. Default `1day`.
    #[serde(with = "duration")]
    pub grace: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            snapshots: 20,
            age: Duration::from_hours(24),
            grace: Duration::from_hours(24),
        }
    }
}

/// Returns whether more than `age` has passed between two times of the store's clock.
fn has_passed(age: Duration, since: SystemTime, now: SystemTime) -> bool {
    now.duration_since(since).is_ok_and(|passed| passed > age)
}

/// Returns the snapshots that may be deleted at `now`, the one that was current longest ago first.
pub(super) fn old_snapshots(
    pointer: Option<&Pointer>,
    listed: &[Listed],
    (keep, now): (Keep, SystemTime),
) -> Vec<SnapshotId> {
    // A publish writes its manifest before it moves the pointer. So a manifest that the pointer
    // doesn't know may be about to become current, and is kept as long as its segments are.
    let unknown_age = keep.age.max(keep.grace);
    let Some(current) = pointer else {
        // Without a pointer these are manifests of publishes that have not finished, or never will.
        let old = listed
            .iter()
            .filter(|listed| has_passed(unknown_age, listed.stat.stored_at, now));
        return old.filter_map(|listed| listed.object.manifest()).collect();
    };
    let was_current = |id| current.replaced.iter().any(|old| old.snapshot == id);
    let snapshots = newest_first(current, listed).into_iter().enumerate();
    let mut old: Vec<_> = snapshots
        .filter(|&(index, (id, since))| {
            let age = if was_current(id) {
                keep.age
            } else {
                unknown_age
            };
            // Both limits must allow it. The current snapshot stays whatever they say.
            index >= keep.snapshots && id != current.snapshot && has_passed(age, since, now)
        })
        .map(|(_, (id, _))| id)
        .collect();
    old.reverse();
    old
}

/// Returns the segments that no manifest names and that may be deleted at `now`, and the number of
/// unnamed segments that are too young.
pub(super) fn old_segments(
    listed: &[Listed],
    named: &HashSet<SegmentId>,
    (keep, now): (Keep, SystemTime),
) -> (Vec<Listed>, usize) {
    let is_named = |listed: &Listed| {
        listed
            .object
            .segment()
            .is_some_and(|id| named.contains(&id))
    };
    let unnamed = listed.iter().filter(|listed| !is_named(listed));
    let (old, young): (Vec<Listed>, Vec<Listed>) =
        unnamed.partition(|listed| has_passed(keep.grace, listed.stat.stored_at, now));
    (old, young.len())
}

/// Returns the snapshots in the order in which they were current, the current one first, each with
/// the time since when it is no longer current.
///
/// - The order comes from the pointer, which remembers the snapshots that it replaced.
/// - The times come from the store, whose clock all daemons share: a snapshot was replaced no
///   earlier than the next manifest was stored.
/// - A snapshot that the pointer doesn't know was either current before all that the pointer knows,
///   or never, because its publish lost a race. It comes last, with the time of its own manifest.
/// - If the pointer remembers as many snapshots as it can, an unknown one may just have fallen out
///   of it. So it counts as no older than the oldest one that the pointer knows.
pub(crate) fn newest_first(current: &Pointer, listed: &[Listed]) -> Vec<(SnapshotId, SystemTime)> {
    let mut unknown: HashMap<SnapshotId, SystemTime> = listed
        .iter()
        .filter_map(|listed| Some((listed.object.manifest()?, listed.stat.stored_at)))
        .collect();
    let mut known = vec![current.snapshot];
    known.extend(current.replaced.iter().map(|replaced| replaced.snapshot));
    let mut snapshots = Vec::new();
    let mut newer = None;
    for id in known {
        let Some(stored_at) = unknown.remove(&id) else {
            continue;
        };
        snapshots.push((id, newer.unwrap_or(stored_at)));
        newer = Some(stored_at);
    }
    let is_full = current.replaced.len() >= MAX_REPLACED;
    let oldest = newer.filter(|_| is_full);
    let mut unknown: Vec<_> = unknown.into_iter().collect();
    unknown.sort_unstable_by_key(|&(id, stored_at)| (Reverse(stored_at), id));
    let since = |stored_at: SystemTime| oldest.map_or(stored_at, |oldest| oldest.max(stored_at));
    snapshots.extend(unknown.into_iter().map(|(id, at)| (id, since(at))));
    snapshots
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::UNIX_EPOCH;

    use cachewfs_format::{Digest, ObjectId, ReplacedSnapshot};

    use super::*;
    use crate::key::Object;
    use crate::objects::Stat;

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

    fn pointer(current: u8, replaced: Vec<ReplacedSnapshot>) -> Pointer {
        Pointer {
            version: Pointer::VERSION,
            snapshot: id(current),
            manifest: Digest::of(b"manifest"),
            archives: BTreeMap::new(),
            published_at: 100,
            replaced,
            notice: None,
            fence: 0,
        }
    }

    #[test]
    fn a_snapshot_was_replaced_when_the_next_one_was_stored() {
        // The times in the pointer are of publishers' clocks and don't count.
        let replaced = vec![(id(2), 7).into(), (id(1), 99_999).into()];
        let current = pointer(3, replaced);
        let listed = [listed(1, 10), listed(3, 30), listed(2, 20)];

        let snapshots = newest_first(&current, &listed);

        assert_eq!(
            snapshots,
            [(id(3), at(30)), (id(2), at(30)), (id(1), at(20))]
        );
    }

    #[test]
    fn snapshots_unknown_to_the_pointer_come_last_by_their_own_time() {
        let current = pointer(3, vec![(id(2), 90).into()]);
        let listed = [listed(8, 20), listed(2, 1), listed(9, 30), listed(3, 2)];

        let snapshots = newest_first(&current, &listed);

        let ids: Vec<_> = snapshots.iter().map(|&(id, _)| id).collect();
        assert_eq!(ids, [id(3), id(2), id(9), id(8)]);
        assert_eq!(snapshots[2].1, at(30));
    }

    #[test]
    fn a_snapshot_that_a_full_pointer_forgot_is_no_older_than_those_it_knows() {
        let replaced = vec![(id(2), 7).into(); MAX_REPLACED];
        let current = pointer(3, replaced);

        let snapshots = newest_first(&current, &[listed(9, 30), listed(2, 80)]);

        assert_eq!(snapshots[1], (id(9), at(80)));
    }

    #[test]
    fn snapshots_are_deleted_by_count_and_age() {
        let replaced = vec![(id(3), 0).into(), (id(2), 0).into(), (id(1), 0).into()];
        let current = pointer(4, replaced);
        let listed = [listed(1, 10), listed(2, 20), listed(3, 30), listed(4, 40)];
        let old = |snapshots, age, now| {
            let keep = Keep {
                snapshots,
                age: Duration::from_secs(age),
                grace: Duration::MAX,
            };
            old_snapshots(Some(&current), &listed, (keep, at(now)))
        };

        assert_eq!(old(1, 0, 100), [id(1), id(2), id(3)]);
        assert_eq!(old(3, 0, 100), [id(1)]);
        assert_eq!(old(1, 75, 100), [id(1)], "the next was stored at 20");
        assert_eq!(old(1, 1000, 100), []);
        assert_eq!(
            old(0, 0, 100),
            [id(1), id(2), id(3)],
            "the current one stays"
        );
        assert_eq!(old(1, 0, 15), [], "times to come");
    }

    #[test]
    fn a_manifest_whose_publish_may_still_move_the_pointer_is_kept() {
        let current = pointer(2, vec![(id(1), 0).into()]);
        let listed = [listed(1, 10), listed(2, 20), listed(3, 30)];
        let old = |pointer, now| {
            let keep = Keep {
                snapshots: 1,
                age: Duration::ZERO,
                grace: Duration::from_secs(50),
            };
            old_snapshots(pointer, &listed, (keep, at(now)))
        };

        assert_eq!(old(Some(&current), 80), [id(1)]);
        assert_eq!(old(Some(&current), 81), [id(3), id(1)]);
        assert_eq!(old(None, 75), [id(1), id(2)]);
    }

    #[test]
    fn without_a_pointer_only_time_counts() {
        let keep = Keep {
            snapshots: 5,
            age: Duration::from_secs(50),
            grace: Duration::ZERO,
        };

        let old = old_snapshots(None, &[listed(1, 10), listed(2, 60)], (keep, at(100)));

        assert_eq!(old, [id(1)]);
    }
}
