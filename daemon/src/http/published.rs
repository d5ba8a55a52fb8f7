//! Finding what is published: one revision of one archive, kept parsed.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cachewfs_format::{ArchiveKind, Digest, Manifest, RepoName, SnapshotId};
use lru::LruCache;

use super::error::ApiError;
use super::routes::App;
use crate::store::Archive;

/// So many archives are kept parsed: their lists of segments take some 40 bytes each.
const MAX_ARCHIVES: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");

/// So many archives that were found are not looked for again.
const MAX_LOOKUPS: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not 0");

/// For so long. A request for a range of a few KiB would spend half of its time looking.
const MAX_AGE: Duration = Duration::from_secs(1);

/// One archive of one snapshot: all that an answer is made of is of one revision.
#[derive(Clone, Debug)]
pub(super) struct PublishedArchive {
    pub(super) snapshot: SnapshotId,
    pub(super) kind: ArchiveKind,
    /// With its quotes.
    pub(super) etag: String,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
    /// A sentence about files that the work tree lacks.
    pub(super) notice: Option<String>,
    pub(super) archive: Arc<Archive>,
}

type ArchiveKey = (RepoName, SnapshotId, ArchiveKind);

/// Revision manifest an archive was read from: a snapshot that was deleted may be published again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ManifestVersion {
    /// The one with this digest.
    Digest(Digest),
    /// The one that was written then.
    WrittenAt(SystemTime),
}

/// The archives that were asked for last.
#[derive(Debug)]
pub(super) struct ParsedArchives(Mutex<LruCache<ArchiveKey, (ManifestVersion, PublishedArchive)>>);

impl Default for ParsedArchives {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_ARCHIVES)))
    }
}

impl ParsedArchives {
    fn get(&self, key: &ArchiveKey, source: ManifestVersion) -> Option<PublishedArchive> {
        let mut archives = self.lock();
        let (of, published) = archives.get(key)?;
        (*of == source).then(|| published.clone())
    }

    fn put(&self, key: ArchiveKey, source: ManifestVersion, published: PublishedArchive) {
        self.lock().put(key, (source, published));
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<ArchiveKey, (ManifestVersion, PublishedArchive)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Revision archive of a repository is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Revision {
    Current,
    /// That of this snapshot.
    Snapshot(SnapshotId),
    /// The one whose TOC has this digest.
    Toc(Digest),
}

/// What was found lately.
#[derive(Debug)]
pub(super) struct RecentLookups(Mutex<LruCache<(RepoName, Revision, ArchiveKind), Lookup>>);

#[derive(Debug)]
struct Lookup {
    published: PublishedArchive,
    started_at: Instant,
    /// The store's number of changes before it was looked at.
    changes: u64,
}

impl Default for RecentLookups {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_LOOKUPS)))
    }
}

impl RecentLookups {
    fn lock(&self) -> MutexGuard<'_, LruCache<(RepoName, Revision, ArchiveKind), Lookup>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds an archive; `None` if it is not, or no longer, there. What this daemon publishes or deletes is
/// seen at once, what others do within [`MAX_AGE`].
pub(super) async fn find(
    app: &Arc<App>,
    repo: &RepoName,
    (which, kind): (Revision, ArchiveKind),
) -> Result<Option<PublishedArchive>, ApiError> {
    let key = (repo.clone(), which, kind);
    let (started_at, changes) = (Instant::now(), app.store.changes());
    let is_fresh = |fresh: &&Lookup| {
        fresh.changes == changes && started_at.duration_since(fresh.started_at) < MAX_AGE
    };
    if let Some(fresh) = app.lookups.lock().get(&key).filter(is_fresh) {
        return Ok(Some(fresh.published.clone()));
    }
    let (finder, repo) = (Arc::clone(app), repo.clone());
    let look = move || match which {
        Revision::Current => current(&finder, &repo, kind),
        Revision::Snapshot(snapshot) => of_snapshot(&finder, &repo, (snapshot, kind)),
        Revision::Toc(toc) => of_toc(&finder, &repo, (toc, kind)),
    };
    let found = tokio::task::spawn_blocking(look).await??;
    if let Some(published) = found.clone() {
        let fresh = Lookup {
            published,
            started_at,
            changes,
        };
        app.lookups.lock().put(key, fresh);
    }
    Ok(found)
}

/// The current archive; `None` if nothing is published. Blocks.
pub(super) fn current(
    app: &App,
    repo: &RepoName,
    kind: ArchiveKind,
) -> Result<Option<PublishedArchive>, ApiError> {
    let store = app.store_of(kind);
    let Some(pointer) = store.pointer(repo)? else {
        return Ok(None);
    };
    let key = (repo.clone(), pointer.snapshot, kind);
    let source = ManifestVersion::Digest(pointer.manifest);
    if let Some(published) = app.parsed.get(&key, source) {
        return Ok(Some(published));
    }
    let manifest = store.current_manifest(repo, &pointer)?;
    let published = published(app, &manifest, kind)
        .ok_or_else(|| ApiError::NoCheckout { repo: repo.clone() })?;
    app.parsed.put(key, source, published.clone());
    Ok(Some(published))
}

/// The id under which an archive of this kind is published: an LFS archive depends on the commit alone.
fn id_of(snapshot: SnapshotId, kind: ArchiveKind) -> SnapshotId {
    match kind {
        ArchiveKind::Mirror | ArchiveKind::Checkout => snapshot,
        ArchiveKind::Lfs => SnapshotId::first(snapshot.commit()),
    }
}

/// The archive of a snapshot; `None` if it is not, or no longer, published. Blocks.
pub(super) fn of_snapshot(
    app: &App,
    repo: &RepoName,
    (snapshot, kind): (SnapshotId, ArchiveKind),
) -> Result<Option<PublishedArchive>, ApiError> {
    let store = app.store_of(kind);
    let snapshot = id_of(snapshot, kind);
    let Some(written_at) = store.manifest_written_at(repo, snapshot)? else {
        return Ok(None);
    };
    let key = (repo.clone(), snapshot, kind);
    let source = ManifestVersion::WrittenAt(written_at);
    if let Some(published) = app.parsed.get(&key, source) {
        return Ok(Some(published));
    }
    let manifest = store.manifest(repo, snapshot)?;
    let published = manifest.and_then(|(manifest, _)| published(app, &manifest, kind));
    if let Some(published) = &published {
        app.parsed.put(key, source, published.clone());
    }
    Ok(published)
}

/// The revision whose TOC has the digest `toc`; `None` if it is not, or no longer, there. Blocks.
fn of_toc(
    app: &App,
    repo: &RepoName,
    (toc, kind): (Digest, ArchiveKind),
) -> Result<Option<PublishedArchive>, ApiError> {
    let Some(snapshot) = app.revisions_of(kind).find(repo, kind, &toc)? else {
        return Ok(None);
    };
    let published = of_snapshot(app, repo, (snapshot, kind))?;
    // The snapshot may have been published anew, with other bytes.
    Ok(published.filter(|published| published.etag == etag(&toc)))
}

fn published(app: &App, manifest: &Manifest, kind: ArchiveKind) -> Option<PublishedArchive> {
    let layout = manifest.archives.get(&kind)?;
    Some(PublishedArchive {
        snapshot: manifest.snapshot,
        kind,
        etag: etag(&layout.toc),
        size: layout.size,
        modified: UNIX_EPOCH + Duration::from_secs(manifest.created_at),
        notice: manifest.notice.clone(),
        archive: Arc::new(Archive::new(
            app.store_of(kind),
            manifest.repo.clone(),
            layout,
        )),
    })
}

fn etag(toc: &Digest) -> String {
    format!("\"{toc}\"")
}
