//! Deleting from a store that daemons publish to of which this one knows nothing, with nothing but
//! compare-and-swap.
//!
//! ```text
//! who deletes                                 who publishes
//!   1 announces what is to go                   1 stores segments
//!   2 waits                                     2 reads what is announced; waits if it needs that
//!   3 looks at manifests and pointer again      3 looks whether all segments are there
//!   4 deletes what none of them names           4 writes the manifest, then the pointer, soon
//! ```
//!
//! Either the publisher sees the announcement, or its manifest is there at the second look: each writes first
//! and then reads what the other wrote. What was deleted before it read, it misses. Ages only keep
//! the two out of each other's way; no two clocks are compared. [`Notice`](crate::store::Notice) has the times,
//! and the tests in `interleaved` run all this against itself.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use cachewfs_format::limits::MAX_DELETION_NOTICES;
use cachewfs_format::{Deletions, RepoName, SegmentId, SnapshotId};

use super::plan::old_segments;
use super::{Collected, Collection, Segments};
use crate::store::key::Object;
use crate::store::tier::{Listed, Version};
use crate::store::{Store, StoreError};

/// How often one looks whether another collection has come to its end.
const PERIOD: Duration = Duration::from_secs(1);

/// One collection of one repository.
pub(super) struct Announced<'a> {
    store: &'a Store,
    repo: &'a RepoName,
    collection: Collection<'a>,
}

/// What is announced at present, by this collection.
struct Record {
    deletions: Deletions,
    version: Option<Version>,
}

impl<'a> Announced<'a> {
    pub(super) fn new(store: &'a Store, repo: &'a RepoName, collection: Collection<'a>) -> Self {
        Self {
            store,
            repo,
            collection,
        }
    }

    pub(super) fn collect(&self) -> Result<Collected, StoreError> {
        let mut record = self.begin()?;
        // What has just been written has the time of the store's own clock.
        let now = self.store.collected_at(self.repo)?;
        let now = now.ok_or(StoreError::Collecting)?;
        let limits = (self.collection.keep, now);
        let (old, all) = self.store.old_snapshots(self.repo, limits)?;
        let snapshots = self.delete_snapshots(&mut record, old)?;
        let mut collected = Collected {
            kept_snapshots: all - snapshots.len(),
            snapshots,
            ..Collected::default()
        };
        let segments = self.store.look_at_segments(self.repo, &[])?;
        let (mut old, young) = old_segments(&segments.listed, &segments.named, limits);
        old.truncate(MAX_DELETION_NOTICES);
        let gone = self.delete_segments(&mut record, (old, &segments))?;
        collected.note(&segments, (&gone, young));
        let cleared = record.deletions.cleared(nonce());
        // If this fails, the next collection waits until it must have ended.
        self.announce(&mut record, cleared).ok();
        Ok(collected)
    }

    /// Takes its turn, which is over when somebody else announces something.
    fn begin(&self) -> Result<Record, StoreError> {
        let clock = &self.store.clock;
        let (mut deletions, mut version) = self.store.deletions(self.repo)?;
        let since = clock.now();
        // One that was killed is waited for until it can't delete anything any more.
        while deletions.has_notices()
            && clock.now().saturating_sub(since) <= self.store.notice.announced()
        {
            if (self.collection.is_stopping)() {
                return Err(StoreError::Stopping);
            }
            clock.pause(PERIOD.min(self.store.notice.0));
            let seen = version;
            (deletions, version) = self.store.deletions(self.repo)?;
            if version != seen {
                return Err(StoreError::Collecting);
            }
        }
        let turn = deletions.cleared(nonce());
        let mut record = Record { deletions, version };
        self.announce(&mut record, turn)?;
        Ok(record)
    }

    /// Makes `new` what is announced.
    fn announce(&self, record: &mut Record, new: Deletions) -> Result<(), StoreError> {
        let expected = record.version.as_ref();
        self.store.swap_deletions(self.repo, &new, expected)?;
        let (present, version) = self.store.deletions(self.repo)?;
        if present != new {
            return Err(StoreError::Collecting);
        }
        *record = Record {
            deletions: new,
            version,
        };
        Ok(())
    }

    /// Announces and waits; gives until when something may be deleted.
    fn announce_and_wait(
        &self,
        record: &mut Record,
        new: Deletions,
    ) -> Result<Duration, StoreError> {
        let (clock, notice) = (&self.store.clock, self.store.notice);
        let began = clock.now();
        self.announce(record, new)?;
        let announced = clock.now();
        loop {
            let waited = clock.now().saturating_sub(announced);
            if waited >= notice.0 {
                return Ok(began + notice.deleting());
            }
            if (self.collection.is_stopping)() {
                return Err(StoreError::Stopping);
            }
            clock.pause(PERIOD.min(notice.0.saturating_sub(waited)));
        }
    }

    /// Deletes as long as it may; gives how many.
    fn delete(
        &self,
        objects: impl Iterator<Item = Object>,
        until: Duration,
    ) -> Result<usize, StoreError> {
        let may_go_on = || self.store.clock.now() < until && !(self.collection.is_stopping)();
        self.store.delete_objects(self.repo, objects, &may_go_on)
    }

    fn delete_snapshots(
        &self,
        record: &mut Record,
        mut old: Vec<SnapshotId>,
    ) -> Result<Vec<SnapshotId>, StoreError> {
        old.truncate(MAX_DELETION_NOTICES);
        if old.is_empty() {
            return Ok(old);
        }
        let mut new = record.deletions.cleared(nonce());
        for &id in &old {
            new.mark_used(id);
        }
        new.snapshots = old.iter().copied().collect();
        let until = self.announce_and_wait(record, new)?;
        let pointer = self.store.authoritative_pointer(self.repo)?;
        let current = pointer.map(|pointer| pointer.snapshot);
        old.retain(|&id| Some(id) != current);
        let gone = self.delete(old.iter().map(|&id| Object::Manifest(id)), until)?;
        old.truncate(gone);
        Ok(old)
    }

    fn delete_segments(
        &self,
        record: &mut Record,
        (mut old, first): (Vec<Listed>, &Segments),
    ) -> Result<Vec<Listed>, StoreError> {
        if old.is_empty() {
            return Ok(old);
        }
        let mut new = record.deletions.cleared(nonce());
        new.segments = segments(&old);
        let until = self.announce_and_wait(record, new)?;
        let named = self.named_meanwhile(first)?;
        old.retain(|listed| {
            let id = listed.object.segment();
            id.is_some_and(|id| !named.contains(&id))
        });
        let gone = self.delete(old.iter().map(|listed| listed.object), until)?;
        old.truncate(gone);
        Ok(old)
    }

    /// What manifests name that were not there at the first look.
    fn named_meanwhile(&self, first: &Segments) -> Result<HashSet<SegmentId>, StoreError> {
        let mut named = HashSet::new();
        for id in self.store.manifests(self.repo)? {
            if !first.manifests.contains(&id) {
                self.store.add_named(self.repo, id, &mut named)?;
            }
        }
        Ok(named)
    }
}

fn segments(listed: &[Listed]) -> BTreeSet<SegmentId> {
    listed
        .iter()
        .filter_map(|listed| listed.object.segment())
        .collect()
}

/// A number by chance: no two announcements have the same bytes.
fn nonce() -> u64 {
    RandomState::new().hash_one(0_u8)
}
