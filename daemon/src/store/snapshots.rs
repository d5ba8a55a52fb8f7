//! What the daemon does with a store: it publishes snapshots, and finds them again.
//!
//! The order is: segments, manifest, pointer. So a present manifest has all its segments, and a present
//! pointer its manifest. It is the same on every tier.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cachewfs_format::{Pointer, RepoName, SegmentId, SnapshotId};

use super::clock::{Clock, MachineClock, Notice};
use super::collect::newest_first;
use super::key::{Key, Part, Shelf};
use super::reads::Reads;
use super::secure::Secured;
use super::tier::{NewSegment, Tier, Whole, Written};
use super::{StoreError, TierError};
use crate::metrics::S3Metrics;

/// Segments, manifests and pointers.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    tier: Arc<dyn Tier>,
    /// Which shelf of each repository this is about.
    is_lfs: bool,
    changes: Arc<AtomicU64>,
    /// Repositories of which something was found damaged and put aside, until they are published.
    pub(super) damaged: Arc<Mutex<HashSet<Shelf>>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) notice: Notice,
}

impl Store {
    pub(crate) fn new(tier: impl Tier + 'static) -> Self {
        Self {
            tier: Arc::new(tier),
            is_lfs: false,
            changes: Arc::default(),
            damaged: Arc::default(),
            clock: Arc::new(MachineClock::default()),
            notice: Notice::default(),
        }
    }

    /// The same store, with other times for who publishes and who deletes.
    pub(crate) fn with_notice(self, notice: Notice) -> Self {
        Self { notice, ..self }
    }

    /// The same store, of LFS archives.
    pub(crate) fn lfs(&self) -> Self {
        Self {
            is_lfs: true,
            ..self.clone()
        }
    }

    /// Whether this is the store of LFS archives.
    pub(crate) fn is_lfs(&self) -> bool {
        self.is_lfs
    }

    #[cfg(test)]
    pub(super) fn with_clock(self, clock: impl Clock + 'static) -> Self {
        let clock = Arc::new(clock);
        Self { clock, ..self }
    }

    pub(super) fn shelf(&self, repo: &RepoName) -> Shelf {
        if self.is_lfs {
            Shelf::of_lfs(repo)
        } else {
            Shelf::of_snapshots(repo)
        }
    }

    pub(super) fn tier(&self) -> &dyn Tier {
        &*self.tier
    }

    /// Where what counts is, and not a copy.
    pub(super) fn authority(&self) -> &dyn Tier {
        self.tier.authority()
    }

    /// A number that is another one after this daemon has changed which snapshots there are.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Notes that this daemon has changed that, or has found that another may have.
    pub(crate) fn has_changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// What each tier was read for.
    pub(crate) fn reads(&self) -> Arc<Reads> {
        self.tier.reads()
    }

    /// The requests to the bucket, if there is one.
    pub(crate) fn s3(&self) -> Option<Arc<S3Metrics>> {
        self.tier.s3()
    }

    /// Makes room for who found none at `path`, if copies of what is in a bucket take it: removes half of them, or
    /// all; tells whether there were any. Blocks.
    pub(crate) fn make_room(&self, path: &Path, all: bool) -> bool {
        self.tier.make_room(path, all)
    }

    /// Stores finished segments; those that are there already are dropped. Gives the number of bytes
    /// that are new.
    pub(crate) fn put_segments(
        &self,
        repo: &RepoName,
        segments: Vec<NewSegment>,
    ) -> Result<u64, StoreError> {
        Ok(self.tier.create_segments(&self.shelf(repo), segments)?)
    }

    /// Which snapshot is current, if one is published.
    pub(crate) fn pointer(&self, repo: &RepoName) -> Result<Option<Pointer>, StoreError> {
        self.pointer_in(self.tier(), repo)
    }

    /// The same in the store itself: what is near may be a second old, or older in an outage.
    pub(super) fn authoritative_pointer(
        &self,
        repo: &RepoName,
    ) -> Result<Option<Pointer>, StoreError> {
        self.pointer_in(self.authority(), repo)
    }

    fn pointer_in(&self, tier: &dyn Tier, repo: &RepoName) -> Result<Option<Pointer>, StoreError> {
        let key = Key::pointer(&self.shelf(repo));
        let found = tier.read_whole(&key)?;
        let pointer = found.map(|found| parse(&key, &found.bytes, Pointer::parse));
        pointer.transpose()
    }

    /// The pointers of `repos`, each perhaps half a minute old.
    pub(crate) fn pointers_lately(
        &self,
        repos: &[RepoName],
    ) -> Vec<Result<Option<Pointer>, StoreError>> {
        let key = |repo| Key::pointer(&self.shelf(repo));
        let keys: Vec<Key> = repos.iter().map(key).collect();
        let read = self.tier.read_lately(&keys);
        let pointer = |(key, found): (&Key, Result<Option<Whole>, TierError>)| {
            let pointer = found?.map(|found| parse(key, &found.bytes, Pointer::parse));
            pointer.transpose()
        };
        keys.iter().zip(read).map(pointer).collect()
    }

    /// Makes `new` the pointer if the present one is `expected`. That its manifest stays was made sure
    /// of just now.
    pub(crate) fn swap_pointer(
        &self,
        repo: &RepoName,
        (expected, new): (Option<&Pointer>, &Pointer),
        secured: &Secured,
    ) -> Result<Written, StoreError> {
        let key = Key::pointer(&self.shelf(repo));
        let present = self.tier.read_whole(&key)?;
        let pointer = match &present {
            Some(present) => Some(parse(&key, &present.bytes, Pointer::parse)?),
            None => None,
        };
        if pointer.as_ref() != expected {
            return Ok(Written::TooLate);
        }
        let version = present.map(|present| present.version);
        let bytes = encode(&key, new.to_json())?;
        self.check_time(secured, self.notice.pointer())?;
        let written = self.tier.swap(&key, version.as_ref(), &bytes);
        self.has_changed();
        if matches!(written, Ok(Written::New)) {
            self.lock_damaged().remove(&key.shelf);
        }
        Ok(written?)
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

    /// Whether something of what is current may be missing, as far as that can be told without asking a bucket.
    pub(crate) fn may_be_damaged(&self, repo: &RepoName) -> bool {
        self.tier.is_directory() || self.lock_damaged().contains(&self.shelf(repo))
    }

    pub(super) fn lock_damaged(&self) -> MutexGuard<'_, HashSet<Shelf>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All repositories of which something is published, in no order, and perhaps some of which nothing
    /// is yet.
    pub(crate) fn repositories(&self) -> Result<Vec<RepoName>, StoreError> {
        Ok(self.tier.repositories()?)
    }

    /// All segments that are there.
    pub(crate) fn segments(&self, repo: &RepoName) -> Result<HashSet<SegmentId>, StoreError> {
        let listed = self.authority().list(&self.shelf(repo), Part::Segments)?;
        let ids = listed
            .into_iter()
            .filter_map(|listed| listed.object.segment());
        Ok(ids.collect())
    }

    /// All snapshots that are kept, in no order.
    pub(super) fn snapshots(&self, repo: &RepoName) -> Result<Vec<SnapshotId>, StoreError> {
        let listed = self
            .tier
            .list(&self.shelf(repo), Part::Manifests)?
            .into_iter();
        Ok(listed
            .filter_map(|listed| listed.object.manifest())
            .collect())
    }
}

pub(super) fn parse<T>(
    key: &Key,
    bytes: &[u8],
    parse: fn(&[u8]) -> cachewfs_format::Result<T>,
) -> Result<T, StoreError> {
    parse(bytes).map_err(|source| StoreError::Unreadable {
        key: key.boxed(),
        source,
    })
}

pub(super) fn encode(
    key: &Key,
    json: cachewfs_format::Result<Vec<u8>>,
) -> Result<Vec<u8>, StoreError> {
    json.map_err(|source| StoreError::Encode {
        key: key.boxed(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cachewfs_format::{Digest, ObjectId};

    use super::*;
    use crate::store::DiskTier;
    use crate::store::testing::secured;

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
    fn a_pointer_moves_only_from_what_is_expected() {
        let (_directory, _, store, repo) = store();
        let (first, second) = (pointer(1), pointer(2));

        assert_eq!(
            store
                .swap_pointer(&repo, (None, &first), &secured(&store, &repo))
                .unwrap(),
            Written::New
        );
        assert_eq!(
            store
                .swap_pointer(&repo, (None, &second), &secured(&store, &repo))
                .unwrap(),
            Written::TooLate
        );
        assert_eq!(store.pointer(&repo).unwrap(), Some(first.clone()));
        assert_eq!(
            store
                .swap_pointer(&repo, (Some(&first), &second), &secured(&store, &repo))
                .unwrap(),
            Written::New
        );
        assert_eq!(store.pointer(&repo).unwrap(), Some(second));
    }

    #[test]
    fn a_pointer_of_a_later_version_is_refused_and_kept() {
        let (_directory, tier, store, repo) = store();
        let key = Key::pointer(&store.shelf(&repo));
        let later = br#"{"version":2,"what":"nobody knows yet"}"#;
        tier.swap(&key, None, later).unwrap();

        let read = store.pointer(&repo);
        let swapped = store.swap_pointer(&repo, (None, &pointer(1)), &secured(&store, &repo));

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
        assert_eq!(tier.read_whole(&key).unwrap().unwrap().bytes, later);
    }
}
