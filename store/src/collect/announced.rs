//! Garbage collection of a bucket, beside daemons that this one doesn't know, with nothing but
//! compare-and-swap.
//!
//! ```text
//! collector                                   publisher
//!   1 writes a deletion notice                  1 stores segments
//!   2 waits for the notice period               2 reads the notice; waits if it has a needed id
//!   3 looks at manifests and pointer again      3 checks that all its segments exist
//!   4 deletes the ids that nothing names        4 writes the manifest, then the pointer, in time
//! ```
//!
//! Each side writes first and then reads what the other side wrote. So either the publisher sees
//! the notice, or the collector finds the publisher's manifest at its second look. If an object was
//! deleted before the publisher read the notice, the publisher misses it in step 3.
//!
//! Ages only keep the two sides out of each other's way; safety doesn't rest on them. The times,
//! and the reason why they are enough, are in `clock`. The tests in `interleaved` run both sides
//! against a model of a bucket.
//!
//! A collection writes the notice several times: an empty one to take its turn, one with snapshots,
//! one with segments, and an empty one at the end.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use cachewfs_base::random_number;
use cachewfs_format::limits::MAX_DELETION_NOTICES;
use cachewfs_format::{Deletions, RepoName, SegmentId, SnapshotId};

use super::plan::old_segments;
use super::{Collected, Collection, Segments};
use crate::key::Object;
use crate::objects::{Listed, Version};
use crate::{Store, StoreError};

/// How often a collector looks whether another collection has ended, or whether it should stop.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// One collection of one repository.
pub(super) struct AnnouncedCollection<'a> {
    store: &'a Store,
    repo: &'a RepoName,
    collection: Collection<'a>,
}

/// The deletion notice that this collection wrote last, with its version in the store.
struct OwnNotice {
    deletions: Deletions,
    version: Option<Version>,
}

impl<'a> AnnouncedCollection<'a> {
    pub(super) fn new(store: &'a Store, repo: &'a RepoName, collection: Collection<'a>) -> Self {
        Self {
            store,
            repo,
            collection,
        }
    }

    pub(super) async fn collect(&self) -> Result<Collected, StoreError> {
        let mut record = self.begin().await?;
        // The notice has just been written, so its time is the present time of the store's own
        // clock. Ages of objects are differences of two times of that one clock.
        let now = self.store.collected_at(self.repo).await?;
        let now = now.ok_or(StoreError::Collecting)?;
        let limits = (self.collection.keep, now);
        let (old, all) = self.store.old_snapshots(self.repo, limits).await?;
        // Manifests first: a crash afterwards leaves segments that no manifest names, which a later
        // collection deletes. The other way round, manifests would name missing segments.
        let snapshots = self.delete_snapshots(&mut record, old).await?;
        let mut collected = Collected {
            kept_snapshots: all - snapshots.len(),
            snapshots,
            ..Collected::default()
        };
        let segments = self.store.look_at_segments(self.repo, &[]).await?;
        let (mut old, young) = old_segments(&segments.listed, &segments.named, limits);
        old.truncate(MAX_DELETION_NOTICES);
        let gone = self.delete_segments(&mut record, (old, &segments)).await?;
        collected.note(&segments, (&gone, young));
        let cleared = record.deletions.cleared(random_number());
        // If this fails, the next collection waits until this one must have ended.
        self.announce(&mut record, cleared).await.ok();
        Ok(collected)
    }

    /// Takes the turn of this collection. Another collector can end it by writing a notice of its
    /// own.
    async fn begin(&self) -> Result<OwnNotice, StoreError> {
        let clock = &self.store.clock;
        let (mut deletions, mut version) = self.store.deletions(self.repo).await?;
        let since = clock.now();
        // A collector that was killed leaves its notice behind. After this time it can't delete any
        // more.
        while deletions.has_notices()
            && clock.now().saturating_sub(since) <= self.store.notice.lifetime()
        {
            if (self.collection.is_stopping)() {
                return Err(StoreError::Stopping);
            }
            clock.pause(POLL_INTERVAL.min(self.store.notice.0)).await;
            let seen = version;
            (deletions, version) = self.store.deletions(self.repo).await?;
            // Any change means that another daemon is at work on this repository: this collection
            // gives way.
            if version != seen {
                return Err(StoreError::Collecting);
            }
        }
        // No two notices have the same nonce, and so no two have the same bytes or version. With
        // the new version, a collector that was slow, and not dead, fails at its next swap.
        let turn = deletions.cleared(random_number());
        let mut record = OwnNotice { deletions, version };
        self.announce(&mut record, turn).await?;
        Ok(record)
    }

    /// Replaces the deletion notice by `new`. Returns [`StoreError::Collecting`] if another
    /// collector has replaced it.
    async fn announce(&self, record: &mut OwnNotice, new: Deletions) -> Result<(), StoreError> {
        let expected = record.version.as_ref();
        self.store.swap_deletions(self.repo, &new, expected).await?;
        // The swap doesn't return the new version. Reading it back also shows whether a swap whose
        // answer was lost was carried out, and by whom: notices have different nonces.
        let (present, version) = self.store.deletions(self.repo).await?;
        if present != new {
            return Err(StoreError::Collecting);
        }
        *record = OwnNotice {
            deletions: new,
            version,
        };
        Ok(())
    }

    /// Writes a deletion notice and waits for the notice period. Returns until when deletions may
    /// begin.
    async fn announce_and_wait(
        &self,
        record: &mut OwnNotice,
        new: Deletions,
    ) -> Result<Duration, StoreError> {
        let (clock, notice) = (&self.store.clock, self.store.notice);
        // Two moments, each on the safe side: deletions must end counted from before the write, and
        // the wait begins only after the notice is certainly there.
        let began = clock.now();
        self.announce(record, new).await?;
        let announced = clock.now();
        loop {
            let waited = clock.now().saturating_sub(announced);
            if waited >= notice.0 {
                return Ok(began + notice.delete_limit());
            }
            if (self.collection.is_stopping)() {
                return Err(StoreError::Stopping);
            }
            let left = notice.0.saturating_sub(waited);
            clock.pause(POLL_INTERVAL.min(left)).await;
        }
    }

    /// Deletes `objects` in order until the deadline `until`. Returns how many were deleted.
    async fn delete(
        &self,
        objects: impl Iterator<Item = Object> + Send,
        until: Duration,
    ) -> Result<usize, StoreError> {
        let may_go_on = || self.store.clock.now() < until && !(self.collection.is_stopping)();
        let deleted = self.store.delete_objects(self.repo, objects, &may_go_on);
        deleted.await
    }

    async fn delete_snapshots(
        &self,
        record: &mut OwnNotice,
        mut old: Vec<SnapshotId>,
    ) -> Result<Vec<SnapshotId>, StoreError> {
        old.truncate(MAX_DELETION_NOTICES);
        if old.is_empty() {
            return Ok(old);
        }
        let mut new = record.deletions.cleared(random_number());
        // The ids stay in the object for ever. A new snapshot with the id of a deleted one would
        // give an immutable URL other bytes.
        for &id in &old {
            new.mark_used(id);
        }
        new.snapshots = old.iter().copied().collect();
        let until = self.announce_and_wait(record, new).await?;
        // The second look: an LFS publish may have made an older snapshot current again.
        let pointer = self.store.authoritative_pointer(self.repo).await?;
        let current = pointer.map(|pointer| pointer.snapshot);
        old.retain(|&id| Some(id) != current);
        let objects = old.iter().map(|&id| Object::Manifest(id));
        let gone = self.delete(objects, until).await?;
        old.truncate(gone);
        Ok(old)
    }

    async fn delete_segments(
        &self,
        record: &mut OwnNotice,
        (mut old, first): (Vec<Listed>, &Segments),
    ) -> Result<Vec<Listed>, StoreError> {
        if old.is_empty() {
            return Ok(old);
        }
        let mut new = record.deletions.cleared(random_number());
        new.segments = segments(&old);
        let until = self.announce_and_wait(record, new).await?;
        let named = self.named_meanwhile(first).await?;
        old.retain(|listed| {
            let id = listed.object.segment();
            id.is_some_and(|id| !named.contains(&id))
        });
        let objects = old.iter().map(|listed| listed.object);
        let gone = self.delete(objects, until).await?;
        old.truncate(gone);
        Ok(old)
    }

    /// Returns the segments named by manifests that were not there at the first look.
    async fn named_meanwhile(&self, first: &Segments) -> Result<HashSet<SegmentId>, StoreError> {
        let mut named = HashSet::new();
        // Manifests never change, so the ones of the first look can't name other segments now.
        for id in self.store.manifests(self.repo).await? {
            if !first.manifests.contains(&id) {
                self.store.add_named(self.repo, id, &mut named).await?;
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
