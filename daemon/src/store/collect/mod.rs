//! Deleting snapshots that are no longer kept, and segments that no manifest names.
//!
//! ```text
//! plan         what may go
//! announced    deleting beside daemons that this one knows nothing of: announce, wait, look again
//! ```
//!
//! Manifests go before segments: a crash in between leaves segments that no manifest names, which a later
//! collection deletes.

mod announced;
#[cfg(test)]
mod interleaved;
mod plan;

use std::collections::HashSet;
use std::time::SystemTime;

use cachewfs_format::{Deletions, RepoName, SegmentId, SnapshotId};

pub(crate) use plan::Keep;
pub(super) use plan::newest_first;

use super::key::{Key, Object, Part};
use super::snapshots::encode;
use super::tier::{Listed, Version, Written};
use super::{Store, StoreError};
use announced::Announced;

/// So many objects are deleted at the same time.
const DELETED_AT_ONCE: usize = 16;

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    /// The snapshots that went.
    pub(crate) snapshots: Vec<SnapshotId>,
    /// How many stay.
    pub(crate) kept_snapshots: usize,
    /// How many segments went, and their bytes.
    pub(crate) segments: usize,
    pub(crate) bytes: u64,
    /// How many stay that a snapshot names.
    pub(crate) kept_segments: usize,
    /// How many stay that none names, because they are too young yet.
    pub(crate) young_segments: usize,
    /// What snapshots name and isn't there: damage.
    pub(crate) missing: Vec<SegmentId>,
}

/// What is deleted, and how.
#[derive(Clone, Copy)]
pub(crate) struct Collection<'a> {
    pub(crate) keep: Keep,
    /// Whether it only says what it would do.
    pub(crate) is_dry_run: bool,
    /// Whether to end early.
    pub(crate) is_stopping: &'a (dyn Fn() -> bool + Sync),
}

/// What there is of segments, and what names them.
struct Segments {
    manifests: HashSet<SnapshotId>,
    named: HashSet<SegmentId>,
    listed: Vec<Listed>,
}

impl Store {
    /// Deletes what [`Keep`] says of `repo`. Others may publish it at the same time.
    ///
    /// [`StoreError::Collecting`] if another collection is under way.
    pub(crate) fn collect(
        &self,
        repo: &RepoName,
        collection: Collection<'_>,
    ) -> Result<Collected, StoreError> {
        let shelf = self.shelf(repo);
        if collection.is_dry_run {
            return self.would_collect(repo, collection.keep);
        }
        let collected = match self.tier().hold_for_deleting(&shelf)? {
            Some(_hold) => self.collect_held(repo, collection),
            None => Announced::new(self, repo, collection).collect(),
        };
        self.has_changed();
        collected
    }

    /// Whether [`Store::collect`] waits for nobody, so that each publish may end with it.
    pub(crate) fn collects_at_once(&self) -> bool {
        self.tier().is_directory()
    }

    /// When something was last collected of `repo`, by the clock of the store.
    pub(crate) fn collected_at(&self, repo: &RepoName) -> Result<Option<SystemTime>, StoreError> {
        let key = Key::deletions(&self.shelf(repo));
        let stat = self.authority().stat(&key)?;
        Ok(stat.map(|stat| stat.stored_at))
    }

    /// What a collection would delete now, if the clock of the store is right.
    fn would_collect(&self, repo: &RepoName, keep: Keep) -> Result<Collected, StoreError> {
        let now = SystemTime::now();
        let (snapshots, all) = self.old_snapshots(repo, (keep, now))?;
        let segments = self.look_at_segments(repo, &snapshots)?;
        let (old, young) = plan::old_segments(&segments.listed, &segments.named, (keep, now));
        let mut collected = Collected {
            kept_snapshots: all - snapshots.len(),
            snapshots,
            ..Collected::default()
        };
        collected.note(&segments, (&old, young));
        Ok(collected)
    }

    /// Deletes while nobody can store anything.
    fn collect_held(
        &self,
        repo: &RepoName,
        collection: Collection<'_>,
    ) -> Result<Collected, StoreError> {
        let (keep, now) = (collection.keep, SystemTime::now());
        let (snapshots, all) = self.old_snapshots(repo, (keep, now))?;
        self.note_used(repo, &snapshots)?;
        let objects = snapshots.iter().map(|&id| Object::Manifest(id));
        self.delete_objects(repo, objects, &|| true)?;
        let mut collected = Collected {
            kept_snapshots: all - snapshots.len(),
            snapshots,
            ..Collected::default()
        };
        let segments = self.look_at_segments(repo, &[])?;
        let (old, young) = plan::old_segments(&segments.listed, &segments.named, (keep, now));
        let may_go_on = || !(collection.is_stopping)();
        let objects = old.iter().map(|listed| listed.object);
        let gone = self.delete_objects(repo, objects, &may_go_on)?;
        collected.note(&segments, (old.get(..gone).unwrap_or(&old), young));
        Ok(collected)
    }

    /// The snapshots that may go at `now`, and how many there are in all.
    fn old_snapshots(
        &self,
        repo: &RepoName,
        limits: (Keep, SystemTime),
    ) -> Result<(Vec<SnapshotId>, usize), StoreError> {
        let manifests = self.list(repo, Part::Manifests)?;
        let pointer = self.authoritative_pointer(repo)?;
        let old = plan::old_snapshots(pointer.as_ref(), &manifests, limits);
        Ok((old, manifests.len()))
    }

    /// Deletes objects in their order as long as it may; gives how many.
    pub(super) fn delete_objects(
        &self,
        repo: &RepoName,
        objects: impl Iterator<Item = Object>,
        may_go_on: &dyn Fn() -> bool,
    ) -> Result<usize, StoreError> {
        let shelf = self.shelf(repo);
        let keys: Vec<_> = objects.map(|object| Key::new(&shelf, object)).collect();
        let mut deleted = 0;
        for keys in keys.chunks(DELETED_AT_ONCE) {
            if !may_go_on() {
                break;
            }
            self.tier().delete(keys)?;
            deleted += keys.len();
        }
        Ok(deleted)
    }

    /// Makes `new` what is announced if that is what has the version `expected`.
    pub(super) fn swap_deletions(
        &self,
        repo: &RepoName,
        new: &Deletions,
        expected: Option<&Version>,
    ) -> Result<(), StoreError> {
        let key = Key::deletions(&self.shelf(repo));
        let bytes = encode(&key, new.to_json())?;
        match self.authority().swap(&key, expected, &bytes)? {
            Written::New => Ok(()),
            Written::TooLate => Err(StoreError::Collecting),
        }
    }

    /// The snapshots that there are in the store itself.
    pub(super) fn manifests(&self, repo: &RepoName) -> Result<HashSet<SnapshotId>, StoreError> {
        let listed = self.list(repo, Part::Manifests)?;
        Ok(listed
            .iter()
            .filter_map(|listed| listed.object.manifest())
            .collect())
    }

    /// Lists what the store itself has, not what is near.
    fn list(&self, repo: &RepoName, part: Part) -> Result<Vec<Listed>, StoreError> {
        Ok(self.authority().list(&self.shelf(repo), part)?)
    }

    /// What is there, and what all manifests but `without` name.
    fn look_at_segments(
        &self,
        repo: &RepoName,
        without: &[SnapshotId],
    ) -> Result<Segments, StoreError> {
        let mut manifests = self.manifests(repo)?;
        manifests.retain(|id| !without.contains(id));
        let mut named = HashSet::new();
        for &id in &manifests {
            self.add_named(repo, id, &mut named)?;
        }
        // Listed last: what a manifest names was stored before it.
        let listed = self.list(repo, Part::Segments)?;
        Ok(Segments {
            manifests,
            named,
            listed,
        })
    }

    /// Adds what a snapshot names; nothing if it isn't there.
    fn add_named(
        &self,
        repo: &RepoName,
        id: SnapshotId,
        named: &mut HashSet<SegmentId>,
    ) -> Result<(), StoreError> {
        // What is deleted must not hang off a copy.
        if let Some((manifest, _)) = self.authoritative_manifest(repo, id)? {
            named.extend(manifest.segments());
        }
        Ok(())
    }
}

impl Collected {
    /// Notes what there was, and what of it went.
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
