//! [`Catalog`]: finds the published archive for a request. Parsed archives and recent lookups are
//! cached.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cachewfs_format::{ArchiveKind, Digest, Manifest, RepoName, SnapshotId};
use lru::LruCache;
use parking_lot::Mutex;

use super::error::ApiError;
use crate::base::Recent;
use crate::store::{Archive, RevisionIndex, Store};

/// At most this many parsed archives are cached. Their lists of segments take some 40 bytes a
/// segment.
const MAX_ARCHIVES: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");

/// At most this many lookups are cached.
const MAX_LOOKUPS: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not 0");

/// How long a lookup is cached. A request for a range of a few KiB would spend half of its time on
/// it.
const MAX_AGE: Duration = Duration::from_secs(1);

/// One published revision of an archive. Everything in an answer comes from here, so an answer
/// never mixes two revisions.
#[derive(Clone, Debug)]
pub(super) struct PublishedArchive {
    pub(super) snapshot: SnapshotId,
    pub(super) kind: ArchiveKind,
    /// The entity tag with its quotes: the digest of the TOC.
    pub(super) etag: String,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
    /// A sentence about files that are missing in the work tree.
    pub(super) notice: Option<String>,
    pub(super) archive: Arc<Archive>,
}

type ArchiveKey = (RepoName, SnapshotId, ArchiveKind);

/// The manifest that a cached archive was read from. A deleted snapshot may be published again, so
/// its id alone doesn't identify the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ManifestVersion {
    /// The manifest with this digest, which a pointer names.
    Digest(Digest),
    /// The manifest that was written at this time.
    WrittenAt(SystemTime),
}

/// The cache of parsed archives; the least recently used one is dropped first.
#[derive(Debug)]
struct ParsedArchives(Mutex<LruCache<ArchiveKey, (ManifestVersion, PublishedArchive)>>);

impl Default for ParsedArchives {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_ARCHIVES)))
    }
}

impl ParsedArchives {
    fn get(&self, key: &ArchiveKey, version: ManifestVersion) -> Option<PublishedArchive> {
        let mut archives = self.0.lock();
        let (cached, published) = archives.get(key)?;
        (*cached == version).then(|| published.clone())
    }

    fn put(&self, key: ArchiveKey, version: ManifestVersion, published: PublishedArchive) {
        self.0.lock().put(key, (version, published));
    }
}

/// The revision of an archive that a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Revision {
    Current,
    /// The archive of this snapshot.
    Snapshot(SnapshotId),
    /// The archive whose TOC has this digest.
    Toc(Digest),
}

/// The result of a lookup.
#[derive(Clone, Debug)]
struct Lookup {
    published: PublishedArchive,
    /// The store's change counter before the lookup.
    changes: u64,
}

/// The published archives of a store.
#[derive(Debug)]
pub(super) struct Catalog {
    store: Store,
    revisions: RevisionIndex,
    lfs_revisions: RevisionIndex,
    parsed: ParsedArchives,
    lookups: Recent<(RepoName, Revision, ArchiveKind), Lookup>,
}

impl Catalog {
    pub(super) fn new(store: Store) -> Self {
        Self {
            revisions: RevisionIndex::new(store.clone()),
            lfs_revisions: RevisionIndex::new(store.lfs()),
            store,
            parsed: ParsedArchives::default(),
            lookups: Recent::new(MAX_LOOKUPS),
        }
    }

    /// Returns the store in which archives of this kind are published.
    pub(super) fn store_of(&self, kind: ArchiveKind) -> Store {
        match kind {
            ArchiveKind::Mirror | ArchiveKind::Checkout => self.store.clone(),
            ArchiveKind::Lfs => self.store.lfs(),
        }
    }

    /// Returns the index of the revisions of archives of this kind.
    fn revisions_of(&self, kind: ArchiveKind) -> &RevisionIndex {
        match kind {
            ArchiveKind::Mirror | ArchiveKind::Checkout => &self.revisions,
            ArchiveKind::Lfs => &self.lfs_revisions,
        }
    }

    /// Finds an archive. Returns `None` if it doesn't exist or is deleted.
    ///
    /// Changes by this daemon are seen at once, changes by other daemons within [`MAX_AGE`].
    pub(super) async fn find(
        &self,
        repo: &RepoName,
        (revision, kind): (Revision, ArchiveKind),
    ) -> Result<Option<PublishedArchive>, ApiError> {
        let key = (repo.clone(), revision, kind);
        // Both are read before the lookup: if a publish happens meanwhile, the cached result counts
        // as outdated.
        let (started_at, changes) = (Instant::now(), self.store.changes());
        let known = self.lookups.get(&key, MAX_AGE);
        if let Some(lookup) = known.filter(|lookup| lookup.changes == changes) {
            return Ok(Some(lookup.published));
        }
        let found = match revision {
            // The store may have remembered the pointer. Then the lookup is as old as the pointer:
            // otherwise the two times would add up.
            Revision::Current => self.dated_current(repo, kind).await?,
            Revision::Snapshot(snapshot) => {
                let found = self.of_snapshot(repo, (snapshot, kind)).await?;
                found.map(|published| (published, started_at))
            }
            Revision::Toc(toc) => {
                let found = self.of_toc(repo, (toc, kind)).await?;
                found.map(|published| (published, started_at))
            }
        };
        // Only archives that exist are cached, so that a first snapshot is seen at once.
        let Some((published, read_at)) = found else {
            return Ok(None);
        };
        let lookup = Lookup {
            published: published.clone(),
            changes,
        };
        self.lookups.put(key, read_at, lookup);
        Ok(Some(published))
    }

    /// Returns the current archive, or `None` if nothing is published.
    pub(super) async fn current(
        &self,
        repo: &RepoName,
        kind: ArchiveKind,
    ) -> Result<Option<PublishedArchive>, ApiError> {
        let found = self.dated_current(repo, kind).await?;
        Ok(found.map(|(published, _)| published))
    }

    /// Returns the current archive, and when its pointer was read.
    async fn dated_current(
        &self,
        repo: &RepoName,
        kind: ArchiveKind,
    ) -> Result<Option<(PublishedArchive, Instant)>, ApiError> {
        let store = self.store_of(kind);
        let Some((pointer, read_at)) = store.dated_pointer(repo).await? else {
            return Ok(None);
        };
        let key = (repo.clone(), pointer.snapshot, kind);
        let version = ManifestVersion::Digest(pointer.manifest);
        if let Some(published) = self.parsed.get(&key, version) {
            return Ok(Some((published, read_at)));
        }
        let manifest = store.current_manifest(repo, &pointer).await?;
        let published = self
            .published(&manifest, kind)
            .ok_or_else(|| ApiError::NoCheckout { repo: repo.clone() })?;
        self.parsed.put(key, version, published.clone());
        Ok(Some((published, read_at)))
    }

    /// Returns the archive of a snapshot, or `None` if it isn't published or is deleted.
    pub(super) async fn of_snapshot(
        &self,
        repo: &RepoName,
        (snapshot, kind): (SnapshotId, ArchiveKind),
    ) -> Result<Option<PublishedArchive>, ApiError> {
        let store = self.store_of(kind);
        let snapshot = id_of(snapshot, kind);
        let Some(written_at) = store.manifest_written_at(repo, snapshot).await? else {
            return Ok(None);
        };
        let key = (repo.clone(), snapshot, kind);
        let version = ManifestVersion::WrittenAt(written_at);
        if let Some(published) = self.parsed.get(&key, version) {
            return Ok(Some(published));
        }
        let manifest = store.manifest(repo, snapshot).await?;
        let published = manifest.and_then(|(manifest, _)| self.published(&manifest, kind));
        if let Some(published) = &published {
            self.parsed.put(key, version, published.clone());
        }
        Ok(published)
    }

    /// Returns the revision whose TOC has the digest `toc`, or `None` if it doesn't exist or is
    /// deleted.
    async fn of_toc(
        &self,
        repo: &RepoName,
        (toc, kind): (Digest, ArchiveKind),
    ) -> Result<Option<PublishedArchive>, ApiError> {
        let Some(snapshot) = self.revisions_of(kind).find(repo, kind, &toc).await? else {
            return Ok(None);
        };
        let published = self.of_snapshot(repo, (snapshot, kind)).await?;
        // The snapshot may have been deleted and published again with other bytes.
        Ok(published.filter(|published| published.etag == etag(&toc)))
    }

    fn published(&self, manifest: &Manifest, kind: ArchiveKind) -> Option<PublishedArchive> {
        let layout = manifest.archives.get(&kind)?;
        Some(PublishedArchive {
            snapshot: manifest.snapshot,
            kind,
            etag: etag(&layout.toc),
            size: layout.size,
            modified: UNIX_EPOCH + Duration::from_secs(manifest.created_at),
            notice: manifest.notice.clone(),
            archive: Arc::new(Archive::new(
                self.store_of(kind),
                manifest.repo.clone(),
                layout,
            )),
        })
    }
}

/// Returns the id under which an archive of this kind is published. An LFS archive depends on the
/// commit only, so snapshots of one commit share it.
fn id_of(snapshot: SnapshotId, kind: ArchiveKind) -> SnapshotId {
    match kind {
        ArchiveKind::Mirror | ArchiveKind::Checkout => snapshot,
        ArchiveKind::Lfs => SnapshotId::first(snapshot.commit()),
    }
}

fn etag(toc: &Digest) -> String {
    format!("\"{toc}\"")
}
