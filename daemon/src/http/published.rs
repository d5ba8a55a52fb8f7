//! Finding what is published: one revision of one archive, kept parsed.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cachewfs_format::{ArchiveKind, Digest, Manifest, RepoName, SnapshotId};
use lru::LruCache;

use super::error::ApiError;
use super::routes::App;
use crate::store::Archive;

/// So many archives are kept parsed: their lists of segments take some 40 bytes each.
const MAX_ARCHIVES: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");

/// One archive of one snapshot: all that an answer is made of is of one revision.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) snapshot: SnapshotId,
    pub(super) kind: ArchiveKind,
    /// With its quotes.
    pub(super) etag: String,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
    pub(super) archive: Arc<Archive>,
}

type Key = (RepoName, SnapshotId, ArchiveKind);

/// Which manifest an archive was read from: a snapshot that was deleted may be published again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The one with this digest.
    Digest(Digest),
    /// The one that was written then.
    WrittenAt(SystemTime),
}

/// The archives that were asked for last.
#[derive(Debug)]
pub(super) struct Archives(Mutex<LruCache<Key, (Source, Published)>>);

impl Default for Archives {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_ARCHIVES)))
    }
}

impl Archives {
    fn get(&self, key: &Key, source: Source) -> Option<Published> {
        let mut archives = self.lock();
        let (of, published) = archives.get(key)?;
        (*of == source).then(|| published.clone())
    }

    fn put(&self, key: Key, source: Source, published: Published) {
        self.lock().put(key, (source, published));
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Key, (Source, Published)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The current archive; `None` if nothing is published. Blocks.
pub(super) fn current(
    app: &App,
    repo: &RepoName,
    kind: ArchiveKind,
) -> Result<Option<Published>, ApiError> {
    let Some(pointer) = app.store.pointer(repo)? else {
        return Ok(None);
    };
    let key = (repo.clone(), pointer.snapshot, kind);
    let source = Source::Digest(pointer.manifest);
    if let Some(published) = app.archives.get(&key, source) {
        return Ok(Some(published));
    }
    let manifest = app.store.current_manifest(repo, &pointer)?;
    let published = published(app, &manifest, kind)
        .ok_or_else(|| ApiError::NoCheckout { repo: repo.clone() })?;
    app.archives.put(key, source, published.clone());
    Ok(Some(published))
}

/// The archive of a snapshot; `None` if it is not, or no longer, published. Blocks.
pub(super) fn of_snapshot(
    app: &App,
    repo: &RepoName,
    (snapshot, kind): (SnapshotId, ArchiveKind),
) -> Result<Option<Published>, ApiError> {
    let Some(written_at) = app.store.manifest_written_at(repo, snapshot)? else {
        return Ok(None);
    };
    let key = (repo.clone(), snapshot, kind);
    let source = Source::WrittenAt(written_at);
    if let Some(published) = app.archives.get(&key, source) {
        return Ok(Some(published));
    }
    let manifest = app.store.manifest(repo, snapshot)?;
    let published = manifest.and_then(|(manifest, _)| published(app, &manifest, kind));
    if let Some(published) = &published {
        app.archives.put(key, source, published.clone());
    }
    Ok(published)
}

/// The revision whose TOC has the digest `toc`; `None` if it is not, or no longer, there. Blocks.
pub(super) fn of_toc(
    app: &App,
    repo: &RepoName,
    (toc, kind): (Digest, ArchiveKind),
) -> Result<Option<Published>, ApiError> {
    let Some(snapshot) = app.revisions.find(repo, kind, &toc)? else {
        return Ok(None);
    };
    let published = of_snapshot(app, repo, (snapshot, kind))?;
    // The snapshot may have been published anew, with other bytes.
    Ok(published.filter(|published| published.etag == etag(&toc)))
}

fn published(app: &App, manifest: &Manifest, kind: ArchiveKind) -> Option<Published> {
    let layout = manifest.archives.get(&kind)?;
    Some(Published {
        snapshot: manifest.snapshot,
        kind,
        etag: etag(&layout.toc),
        size: layout.size,
        modified: UNIX_EPOCH + Duration::from_secs(manifest.created_at),
        archive: Arc::new(Archive::new(
            app.store.clone(),
            manifest.repo.clone(),
            layout,
        )),
    })
}

fn etag(toc: &Digest) -> String {
    format!("\"{toc}\"")
}
