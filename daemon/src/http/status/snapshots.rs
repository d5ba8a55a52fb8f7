//! The snapshots of a repository, and how many bytes each shares with the one before.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use cachewfs_format::api::SnapshotStatus;
use cachewfs_format::{
    ArchiveKind, ArchiveLayout, Manifest, Pointer, RepoName, SegmentId, SnapshotId,
};
use lru::LruCache;
use parking_lot::Mutex;

use crate::base::Recent;
use crate::store::{Store, StoreError};

/// At most this many snapshots of a repository are described.
const MAX_DESCRIBED: usize = 5;
/// At most this many descriptions are cached: parsing the manifest of a large repository takes
/// long.
const MAX_REPORTS: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not 0");

/// How long a list of snapshots is cached while the same snapshot is current. Old snapshots in it
/// may be deleted meanwhile.
const MAX_LIST_AGE: Duration = Duration::from_mins(5);
/// At most this many lists are cached.
const MAX_LISTS: NonZeroUsize = NonZeroUsize::new(1024).expect("1024 is not 0");

/// A snapshot, and the snapshot before, with which it is compared.
type ReportKey = (RepoName, SnapshotId, Option<SnapshotId>);

/// The cache of descriptions and lists.
#[derive(Debug)]
pub(super) struct DescribedSnapshots {
    /// Never outdated: snapshots are immutable.
    reports: Mutex<LruCache<ReportKey, SnapshotStatus>>,
    /// The snapshots of repositories, the newest first. A list is valid while its first snapshot is
    /// current.
    lists: Recent<RepoName, Vec<SnapshotId>>,
}

impl Default for DescribedSnapshots {
    fn default() -> Self {
        Self {
            reports: Mutex::new(LruCache::new(MAX_REPORTS)),
            lists: Recent::new(MAX_LISTS),
        }
    }
}

impl DescribedSnapshots {
    /// Returns the newest snapshots of `repo`, the newest first, and the number of all.
    pub(super) async fn newest(
        &self,
        store: &Store,
        repo: &RepoName,
    ) -> Result<(Vec<SnapshotStatus>, usize), StoreError> {
        let ids = store.newest_snapshots(repo).await?;
        self.describe_all(store, repo, &ids).await
    }

    /// Returns the newest snapshots of `repo` as [`Self::newest`] does, from a list that may be
    /// some minutes old if `current` is its first snapshot.
    pub(super) async fn newest_lately(
        &self,
        store: &Store,
        (repo, current): (&RepoName, SnapshotId),
    ) -> Result<(Vec<SnapshotStatus>, usize), StoreError> {
        let known = self.lists.get(repo, MAX_LIST_AGE);
        let ids = if let Some(ids) = known.filter(|ids| ids.first() == Some(&current)) {
            ids
        } else {
            let (asked_at, ids) = (Instant::now(), store.newest_snapshots(repo).await?);
            self.lists.put(repo.clone(), asked_at, ids.clone());
            ids
        };
        self.describe_all(store, repo, &ids).await
    }

    async fn describe_all(
        &self,
        store: &Store,
        repo: &RepoName,
        ids: &[SnapshotId],
    ) -> Result<(Vec<SnapshotStatus>, usize), StoreError> {
        let mut newest = Vec::new();
        for (index, &id) in ids.iter().take(MAX_DESCRIBED).enumerate() {
            let key = (repo.clone(), id, ids.get(index + 1).copied());
            let known = self.reports.lock().get(&key).cloned();
            newest.extend(match known {
                Some(known) => Some(known),
                None => self.describe(store, key).await?,
            });
        }
        Ok((newest, ids.len()))
    }

    async fn describe(
        &self,
        store: &Store,
        key: ReportKey,
    ) -> Result<Option<SnapshotStatus>, StoreError> {
        let (repo, id, before) = &key;
        // It may have been deleted since it was listed.
        let Some((manifest, _)) = store.manifest(repo, *id).await? else {
            return Ok(None);
        };
        let before = match before {
            Some(before) => store.manifest(repo, *before).await?,
            None => None,
        };
        let report = describe(&manifest, before.as_ref().map(|(before, _)| before));
        if let Some(report) = &report {
            self.reports.lock().put(key, report.clone());
        }
        Ok(report)
    }
}

/// Describes the snapshot that a pointer names, as far as the pointer does.
pub(super) fn of_pointer(pointer: &Pointer) -> Option<SnapshotStatus> {
    let archives = &pointer.archives;
    let checkout = archives.get(&ArchiveKind::Checkout);
    let archive = checkout.or_else(|| archives.get(&ArchiveKind::Mirror))?;
    Some(SnapshotStatus {
        snapshot: pointer.snapshot,
        created_at: pointer.published_at,
        bytes: archive.size,
        shared_bytes: None,
    })
}

fn describe(manifest: &Manifest, before: Option<&Manifest>) -> Option<SnapshotStatus> {
    let archive = main_archive(manifest)?;
    let shared = |before: &ArchiveLayout| {
        let ids: HashSet<SegmentId> = before.segments.iter().map(|segment| segment.id).collect();
        let shared = archive.segments.iter();
        let shared = shared.filter(|segment| ids.contains(&segment.id));
        shared.map(|segment| segment.len).sum()
    };
    Some(SnapshotStatus {
        snapshot: manifest.snapshot,
        created_at: manifest.created_at,
        bytes: archive.size,
        shared_bytes: before.and_then(main_archive).map(shared),
    })
}

fn main_archive(manifest: &Manifest) -> Option<&ArchiveLayout> {
    let archives = &manifest.archives;
    let checkout = archives.get(&ArchiveKind::Checkout);
    checkout.or_else(|| archives.get(&ArchiveKind::Mirror))
}
