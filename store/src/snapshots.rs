//! [`Store`], the entry point of this module: publishes the parts of snapshots and reads them back.
//!
//! A publish stores segments first, then the manifest, then the pointer. So the segments of every
//! manifest exist, and so does the manifest of every pointer. This invariant is the same on every
//! tier. Deleting goes the other way.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cachewfs_format::{Pointer, RepoName, SegmentId, SnapshotId};
use parking_lot::Mutex;

use super::clock::{Clock, MachineClock, NoticePeriod};
use super::collect::{Deleting, newest_first};
use super::json::{encode, parse};
use super::key::{Key, Shelf, ShelfKind, ShelfPart};
use super::objects::{NewSegment, Objects, Whole, Written};
use super::protect::Protection;
use super::reads::Reads;
use super::{StoreError, TierError, Tiers};
use crate::BucketMetrics;

/// The store: segments, manifests and pointers of all repositories.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) tiers: Tiers,
    pub(super) deleting: Deleting,
    /// The shelf of each repository that this value works on.
    kind: ShelfKind,
    /// Counts the changes that this daemon has made.
    changes: Arc<AtomicU64>,
    /// Shelves of which a damaged segment was set aside, until they are published again.
    pub(super) damaged: Arc<Mutex<HashSet<Shelf>>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) notice: NoticePeriod,
}

impl Store {
    pub fn new(tiers: impl Into<Tiers>) -> Self {
        let tiers = tiers.into();
        Self {
            deleting: Deleting::of(&tiers),
            tiers,
            kind: ShelfKind::Snapshots,
            changes: Arc::default(),
            damaged: Arc::default(),
            clock: Arc::new(MachineClock::default()),
            notice: NoticePeriod::default(),
        }
    }

    /// Returns the store with another notice period.
    pub fn with_notice(self, notice: NoticePeriod) -> Self {
        Self { notice, ..self }
    }

    /// Returns the store of the LFS archives.
    pub fn lfs(&self) -> Self {
        Self {
            kind: ShelfKind::Lfs,
            ..self.clone()
        }
    }

    /// Returns the kind of the shelves that this value works on.
    pub fn kind(&self) -> ShelfKind {
        self.kind
    }

    #[cfg(test)]
    pub(super) fn with_deleting(self, deleting: Deleting) -> Self {
        Self { deleting, ..self }
    }

    #[cfg(test)]
    pub(super) fn with_clock(self, clock: impl Clock + 'static) -> Self {
        let clock = Arc::new(clock);
        Self { clock, ..self }
    }

    pub fn shelf(&self, repo: &RepoName) -> Shelf {
        Shelf::new(repo, self.kind)
    }

    /// Returns the objects as they are read first: local copies, if there are any. A pointer may
    /// then be a second old, or older in an outage; a swap with its version fails.
    pub(super) fn nearest(&self) -> &dyn Objects {
        self.tiers.nearest()
    }

    /// Returns the objects that are not copies: the bucket, or the directory if there is no bucket.
    pub(super) fn authoritative(&self) -> &dyn Objects {
        self.tiers.authoritative()
    }

    /// Returns a number that changes whenever this daemon may have changed which snapshots exist.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Changes the number of [`Store::changes`], because this daemon, or perhaps another one, has
    /// changed which snapshots exist.
    pub fn has_changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Returns the counters of reads by tier.
    pub fn reads(&self) -> Arc<Reads> {
        self.tiers.reads()
    }

    /// Returns the metrics of requests to the bucket, if there is one.
    pub fn bucket_metrics(&self) -> Option<Arc<BucketMetrics>> {
        self.tiers.bucket_metrics()
    }

    /// Evicts half of the disk copies, or all, if they are on the filesystem of `path`. Returns
    /// whether there were any. Blocks.
    pub fn make_room(&self, path: &Path, all: bool) -> bool {
        self.tiers.make_room(path, all)
    }

    /// Stores finished segments, and drops the ones that exist already. Returns the number of bytes
    /// that are new.
    pub async fn put_segments(
        &self,
        repo: &RepoName,
        segments: Vec<NewSegment>,
    ) -> Result<u64, StoreError> {
        let shelf = self.shelf(repo);
        let stored = self.nearest().create_segments(&shelf, segments);
        Ok(stored.await?)
    }

    /// Returns the pointer, or `None` if nothing is published. It may be a second old, or older in
    /// an outage.
    pub async fn pointer(&self, repo: &RepoName) -> Result<Option<Pointer>, StoreError> {
        Ok(self.dated_pointer(repo).await?.map(|(pointer, _)| pointer))
    }

    /// Returns the pointer as [`Store::pointer`] does, and when the tier that has it was asked.
    pub async fn dated_pointer(
        &self,
        repo: &RepoName,
    ) -> Result<Option<(Pointer, Instant)>, StoreError> {
        self.pointer_in(self.nearest(), repo).await
    }

    /// Returns the pointer from the authoritative tier. [`Store::pointer`] may return a cached one.
    pub(super) async fn authoritative_pointer(
        &self,
        repo: &RepoName,
    ) -> Result<Option<Pointer>, StoreError> {
        let found = self.pointer_in(self.authoritative(), repo).await?;
        Ok(found.map(|(pointer, _)| pointer))
    }

    async fn pointer_in(
        &self,
        objects: &dyn Objects,
        repo: &RepoName,
    ) -> Result<Option<(Pointer, Instant)>, StoreError> {
        let key = Key::pointer(&self.shelf(repo));
        let Some(found) = objects.read_whole(&key).await? else {
            return Ok(None);
        };
        let pointer = parse(&key, &found.bytes, Pointer::parse)?;
        Ok(Some((pointer, found.read_at)))
    }

    /// Returns the pointers of `repos`. Each may be half a minute old.
    pub async fn recent_pointers(
        &self,
        repos: &[RepoName],
    ) -> Vec<Result<Option<Pointer>, StoreError>> {
        let key = |repo| Key::pointer(&self.shelf(repo));
        let keys: Vec<Key> = repos.iter().map(key).collect();
        let read = self.tiers.read_recent(&keys).await;
        let pointer = |(key, found): (&Key, Result<Option<Whole>, TierError>)| {
            let pointer = found?.map(|found| parse(key, &found.bytes, Pointer::parse));
            pointer.transpose()
        };
        keys.iter().zip(read).map(pointer).collect()
    }

    /// Replaces the pointer if it still is `expected`. `protection` must cover the manifest of
    /// `new`.
    pub async fn swap_pointer(
        &self,
        repo: &RepoName,
        (expected, new): (Option<&Pointer>, &Pointer),
        protection: &Protection,
    ) -> Result<Written, StoreError> {
        let key = Key::pointer(&self.shelf(repo));
        // This may be a cached pointer. If the bucket has another one by now, its version differs,
        // and the swap below is refused.
        let present = self.nearest().read_whole(&key).await?;
        let pointer = match &present {
            Some(present) => Some(parse(&key, &present.bytes, Pointer::parse)?),
            None => None,
        };
        if pointer.as_ref() != expected {
            return Ok(Written::TooLate);
        }
        let version = present.map(|present| present.version);
        let bytes = encode(&key, new.to_json())?;
        // Checked as late as possible: everything before the request counts towards the limit.
        self.check_time(protection, self.notice.pointer_limit())?;
        let written = self.nearest().swap(&key, version.as_ref(), &bytes).await;
        // Also after an error: the request may have been carried out although its answer was lost.
        self.has_changed();
        if matches!(written, Ok(Written::New)) {
            self.damaged.lock().remove(&key.shelf);
        }
        Ok(written?)
    }

    /// Returns all snapshots that exist: the current one, then the others by when they were
    /// replaced, the latest first.
    pub async fn newest_snapshots(&self, repo: &RepoName) -> Result<Vec<SnapshotId>, StoreError> {
        let Some(current) = self.pointer(repo).await? else {
            return Ok(Vec::new());
        };
        let shelf = self.shelf(repo);
        let listed = self.nearest().list(&shelf, ShelfPart::Manifests).await?;
        let snapshots = newest_first(&current, &listed).into_iter();
        Ok(snapshots.map(|(id, _)| id).collect())
    }

    /// Returns whether an object of the current snapshot may be missing. Looks at nothing but this
    /// daemon's memory: for a directory the answer is always `true`.
    pub fn may_be_damaged(&self, repo: &RepoName) -> bool {
        matches!(self.tiers, Tiers::Directory(_)) || self.damaged.lock().contains(&self.shelf(repo))
    }

    /// Returns all repositories that have a published snapshot, in no order, and perhaps some that
    /// have none yet.
    pub async fn repositories(&self) -> Result<Vec<RepoName>, StoreError> {
        Ok(self.nearest().repositories().await?)
    }

    /// Returns the ids of all segments in the authoritative tier.
    pub async fn segments(&self, repo: &RepoName) -> Result<HashSet<SegmentId>, StoreError> {
        let (shelf, objects) = (self.shelf(repo), self.authoritative());
        let listed = objects.list(&shelf, ShelfPart::Segments).await?;
        let ids = listed
            .into_iter()
            .filter_map(|listed| listed.object.segment());
        Ok(ids.collect())
    }

    /// Returns all snapshots that exist, in no order.
    pub(super) async fn snapshots(&self, repo: &RepoName) -> Result<Vec<SnapshotId>, StoreError> {
        let shelf = self.shelf(repo);
        let listed = self.nearest().list(&shelf, ShelfPart::Manifests).await?;
        Ok(listed
            .into_iter()
            .filter_map(|listed| listed.object.manifest())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cachewfs_format::{Digest, ObjectId};

    use super::*;
    use crate::DiskTier;
    use crate::testing::{now, protection};

    fn store() -> (tempfile::TempDir, DiskTier, Store, RepoName) {
        let directory = tempfile::tempdir().unwrap();
        let tier = DiskTier::create(directory.path(), &directory.path().join("tmp")).unwrap();
        let store = Store::new(tier.clone());
        let repo = RepoName::parse("example.com/a").unwrap();
        (directory, tier, store, repo)
    }

    fn pointer(byte: u8) -> Pointer {
        Pointer {
            version: Pointer::VERSION,
            snapshot: SnapshotId::first(ObjectId::from_bytes(&[byte; 20]).unwrap()),
            manifest: Digest::of(&[byte]),
            archives: BTreeMap::new(),
            published_at: 7,
            replaced: Vec::new(),
            notice: None,
            fence: 0,
        }
    }

    #[test]
    fn a_pointer_is_replaced_only_if_it_is_the_expected_one() {
        let (_directory, _, store, repo) = store();
        let (first, second) = (pointer(1), pointer(2));

        assert_eq!(
            now(store.swap_pointer(&repo, (None, &first), &protection(&store, &repo))).unwrap(),
            Written::New
        );
        assert_eq!(
            now(store.swap_pointer(&repo, (None, &second), &protection(&store, &repo))).unwrap(),
            Written::TooLate
        );
        assert_eq!(now(store.pointer(&repo)).unwrap(), Some(first.clone()));
        assert_eq!(
            now(store.swap_pointer(&repo, (Some(&first), &second), &protection(&store, &repo)))
                .unwrap(),
            Written::New
        );
        assert_eq!(now(store.pointer(&repo)).unwrap(), Some(second));
    }

    #[test]
    fn a_pointer_of_a_later_version_is_refused_and_kept() {
        let (_directory, tier, store, repo) = store();
        let key = Key::pointer(&store.shelf(&repo));
        let later = br#"{"version":2,"what":"nobody knows yet"}"#;
        now(tier.swap(&key, None, later)).unwrap();

        let read = now(store.pointer(&repo));
        let swapped =
            now(store.swap_pointer(&repo, (None, &pointer(1)), &protection(&store, &repo)));

        let is_refused = |error: StoreError| {
            matches!(
                error,
                StoreError::Unreadable {
                    source: cachewfs_format::Error::UnknownVersion { version: 2, .. },
                    ..
                }
            )
        };
        assert!(is_refused(read.unwrap_err()));
        assert!(is_refused(swapped.unwrap_err()));
        assert_eq!(now(tier.read_whole(&key)).unwrap().unwrap().bytes, later);
    }
}
