//! Garbage collection: deletes snapshots that are no longer kept, and segments that no manifest
//! names.
//!
//! ```text
//! plan         which snapshots and segments may be deleted
//! announced    deleting from a bucket: deletion notice, wait, second look
//! ```
//!
//! In a directory, a lock keeps publishers from storing segments meanwhile, so deleting needs no
//! notice.
//!
//! Manifests are deleted before segments: a crash in between leaves segments that no manifest
//! names, which a later collection deletes.

mod announced;
#[cfg(test)]
mod interleaved;
mod log;
mod plan;

use std::collections::HashSet;
use std::fmt::{self, Debug, Formatter};
use std::time::SystemTime;

use cachewfs_format::{Deletions, RepoName, SegmentId, SnapshotId};

pub use log::{log_collected, log_failed_collection};
pub use plan::Keep;
pub(super) use plan::newest_first;

use super::directory::Directory;
use super::json::encode;
use super::key::{Key, Object, ShelfPart};
use super::objects::{Listed, Version, Written};
use super::{DiskTier, Store, StoreError, Tiers};
use announced::AnnouncedCollection;

/// At most this many repositories are collected at the same time. A collection mostly waits.
pub const MAX_COLLECTIONS: usize = 16;
/// At most this many objects are deleted at the same time.
const DELETED_AT_ONCE: usize = 16;

/// The work that a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The snapshots that were deleted.
    pub snapshots: Vec<SnapshotId>,
    /// How many snapshots are kept.
    pub kept_snapshots: usize,
    /// How many segments were deleted, and their bytes.
    pub segments: usize,
    pub bytes: u64,
    /// How many segments are kept because a snapshot names them.
    pub kept_segments: usize,
    /// How many segments are kept although no snapshot names them, because they are too young.
    pub young_segments: usize,
    /// Segments that a snapshot names and that are missing from the store: damage.
    pub missing: Vec<SegmentId>,
}

/// The options of a collection.
#[derive(Clone, Copy)]
pub struct Collection<'a> {
    pub keep: Keep,
    /// Whether to report only, and delete nothing.
    pub is_dry_run: bool,
    /// Returns whether the collection should end early.
    pub is_stopping: &'a (dyn Fn() -> bool + Sync),
}

impl Debug for Collection<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Collection")
            .field("keep", &self.keep)
            .field("is_dry_run", &self.is_dry_run)
            .finish_non_exhaustive()
    }
}

/// How a collection keeps publishers from naming an object that it is about to delete.
#[derive(Clone, Debug)]
pub(super) enum Deleting {
    /// Under the lock on the shelf in this directory.
    Locked(DiskTier),
    /// A notice comes first, and then the notice period.
    Announced,
}

impl Deleting {
    pub(super) fn of(tiers: &Tiers) -> Self {
        match tiers {
            Tiers::Directory(disk) => Self::Locked(disk.clone()),
            Tiers::Bucket(_) | Tiers::Copies(_) => Self::Announced,
        }
    }
}

/// The segments in the store, and the manifests that name them.
struct Segments {
    manifests: HashSet<SnapshotId>,
    named: HashSet<SegmentId>,
    listed: Vec<Listed>,
}

impl Store {
    /// Deletes the snapshots and segments of `repo` that [`Keep`] doesn't keep. Daemons may publish
    /// it at the same time.
    ///
    /// Returns [`StoreError::Collecting`] if another collection is in progress.
    pub async fn collect(
        &self,
        repo: &RepoName,
        collection: Collection<'_>,
    ) -> Result<Collected, StoreError> {
        let shelf = self.shelf(repo);
        if collection.is_dry_run {
            return self.plan_collection(repo, collection.keep).await;
        }
        let collected = match &self.deleting {
            Deleting::Locked(directory) => {
                let lock = move |directory: &Directory| directory.lock_for_deleting(&shelf);
                let _lock = directory.run(lock).await?;
                self.collect_locked(repo, collection).await
            }
            Deleting::Announced => {
                AnnouncedCollection::new(self, repo, collection)
                    .collect()
                    .await
            }
        };
        self.has_changed();
        collected
    }

    /// Returns whether [`Store::collect`] never waits for a notice period, so that each publish may
    /// end with it.
    pub fn collects_without_waiting(&self) -> bool {
        matches!(self.deleting, Deleting::Locked(_))
    }

    /// Returns when `repo` was last collected, by the clock of the store, or `None` if it never
    /// was. Every collection writes the deletion notice.
    pub async fn collected_at(&self, repo: &RepoName) -> Result<Option<SystemTime>, StoreError> {
        let key = Key::deletions(&self.shelf(repo));
        let stat = self.authoritative().stat(&key).await?;
        Ok(stat.map(|stat| stat.stored_at))
    }

    /// Returns what a collection would delete now, assuming that this machine's clock agrees with
    /// the store's.
    async fn plan_collection(&self, repo: &RepoName, keep: Keep) -> Result<Collected, StoreError> {
        let now = SystemTime::now();
        let (snapshots, all) = self.old_snapshots(repo, (keep, now)).await?;
        let segments = self.look_at_segments(repo, &snapshots).await?;
        let (old, young) = plan::old_segments(&segments.listed, &segments.named, (keep, now));
        let mut collected = Collected {
            kept_snapshots: all - snapshots.len(),
            snapshots,
            ..Collected::default()
        };
        collected.note(&segments, (&old, young));
        Ok(collected)
    }

    /// Collects while the lock on the shelf keeps publishers from storing segments. The caller
    /// holds the lock.
    async fn collect_locked(
        &self,
        repo: &RepoName,
        collection: Collection<'_>,
    ) -> Result<Collected, StoreError> {
        let (keep, now) = (collection.keep, SystemTime::now());
        let (snapshots, all) = self.old_snapshots(repo, (keep, now)).await?;
        // Ids are noted before the manifests go: after a crash in between, an id is noted whose
        // manifest still exists, which only keeps it from being used again.
        self.note_used(repo, &snapshots).await?;
        let objects = snapshots.iter().map(|&id| Object::Manifest(id));
        self.delete_objects(repo, objects, &|| true).await?;
        let mut collected = Collected {
            kept_snapshots: all - snapshots.len(),
            snapshots,
            ..Collected::default()
        };
        let segments = self.look_at_segments(repo, &[]).await?;
        let (old, young) = plan::old_segments(&segments.listed, &segments.named, (keep, now));
        let may_go_on = || !(collection.is_stopping)();
        let objects = old.iter().map(|listed| listed.object);
        let gone = self.delete_objects(repo, objects, &may_go_on).await?;
        collected.note(&segments, (old.get(..gone).unwrap_or(&old), young));
        Ok(collected)
    }

    /// Returns the snapshots that may be deleted at `now`, and how many there are in all.
    async fn old_snapshots(
        &self,
        repo: &RepoName,
        limits: (Keep, SystemTime),
    ) -> Result<(Vec<SnapshotId>, usize), StoreError> {
        let manifests = self.list(repo, ShelfPart::Manifests).await?;
        let pointer = self.authoritative_pointer(repo).await?;
        let old = plan::old_snapshots(pointer.as_ref(), &manifests, limits);
        Ok((old, manifests.len()))
    }

    /// Deletes objects in order while `may_go_on` returns `true`. Returns how many were deleted.
    pub(super) async fn delete_objects(
        &self,
        repo: &RepoName,
        objects: impl Iterator<Item = Object> + Send,
        may_go_on: &(dyn Fn() -> bool + Sync),
    ) -> Result<usize, StoreError> {
        let shelf = self.shelf(repo);
        let keys: Vec<_> = objects.map(|object| Key::new(&shelf, object)).collect();
        let mut deleted = 0;
        for keys in keys.chunks(DELETED_AT_ONCE) {
            if !may_go_on() {
                break;
            }
            self.nearest().delete(keys).await?;
            deleted += keys.len();
        }
        Ok(deleted)
    }

    /// Replaces the deletion notice by `new` if its version is `expected`. Returns
    /// [`StoreError::Collecting`] if it isn't.
    pub(super) async fn swap_deletions(
        &self,
        repo: &RepoName,
        new: &Deletions,
        expected: Option<&Version>,
    ) -> Result<(), StoreError> {
        let key = Key::deletions(&self.shelf(repo));
        let bytes = encode(&key, new.to_json())?;
        match self.authoritative().swap(&key, expected, &bytes).await? {
            Written::New => Ok(()),
            Written::TooLate => Err(StoreError::Collecting),
        }
    }

    /// Returns the snapshots in the authoritative tier.
    pub(super) async fn manifests(
        &self,
        repo: &RepoName,
    ) -> Result<HashSet<SnapshotId>, StoreError> {
        let listed = self.list(repo, ShelfPart::Manifests).await?;
        Ok(listed
            .iter()
            .filter_map(|listed| listed.object.manifest())
            .collect())
    }

    /// Lists the authoritative tier, and not the local copies.
    async fn list(&self, repo: &RepoName, part: ShelfPart) -> Result<Vec<Listed>, StoreError> {
        let shelf = self.shelf(repo);
        Ok(self.authoritative().list(&shelf, part).await?)
    }

    /// Returns the segments in the store, and the ones named by any manifest but `without`.
    async fn look_at_segments(
        &self,
        repo: &RepoName,
        without: &[SnapshotId],
    ) -> Result<Segments, StoreError> {
        let mut manifests = self.manifests(repo).await?;
        manifests.retain(|id| !without.contains(id));
        let mut named = HashSet::new();
        for &id in &manifests {
            self.add_named(repo, id, &mut named).await?;
        }
        // Listed last: a segment is stored before the manifest that names it. The other way round,
        // a publish in between would look like damage.
        let listed = self.list(repo, ShelfPart::Segments).await?;
        Ok(Segments {
            manifests,
            named,
            listed,
        })
    }

    /// Adds the segments that a snapshot names, or none if the snapshot doesn't exist.
    async fn add_named(
        &self,
        repo: &RepoName,
        id: SnapshotId,
        named: &mut HashSet<SegmentId>,
    ) -> Result<(), StoreError> {
        // Never a local copy: a stale or damaged one could name other segments, and the named ones
        // would be deleted. This costs one request for each kept snapshot.
        if let Some((manifest, _)) = self.authoritative_manifest(repo, id).await? {
            named.extend(manifest.segments());
        }
        Ok(())
    }
}

impl Collected {
    /// Records the segments that were found and the ones that were deleted.
    fn note(&mut self, segments: &Segments, (gone, young): (&[Listed], usize)) {
        let Segments { listed, named, .. } = segments;
        let present: HashSet<SegmentId> = listed
            .iter()
            .filter_map(|listed| listed.object.segment())
            .collect();
        self.missing = named.difference(&present).copied().collect();
        self.kept_segments = named.len() - self.missing.len();
        self.young_segments = young;
        self.segments = gone.len();
        self.bytes = gone.iter().map(|listed| listed.stat.len).sum();
    }
}
