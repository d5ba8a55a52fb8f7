//! Finding a snapshot by the digest of an archive's TOC, with nothing but the store: any replica can.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use cachewfs_format::{ArchiveKind, Digest, Manifest, RepoName, SnapshotId};
use lru::LruCache;
use tracing::warn;

use super::{Store, StoreError};
use crate::error_chain::chain;

/// Of so many snapshots the digests are remembered, some 200 bytes each: a manifest of a large
/// repository takes long to parse, and a request may name a revision that there never was.
const MAX_KNOWN: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not 0");

type Tocs = BTreeMap<ArchiveKind, Digest>;

/// Which snapshot has the archive whose TOC has a given digest; filled as it is asked.
#[derive(Debug)]
pub(crate) struct RevisionIndex {
    store: Store,
    known: Mutex<LruCache<(RepoName, SnapshotId), Tocs>>,
}

impl RevisionIndex {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            known: Mutex::new(LruCache::new(MAX_KNOWN)),
        }
    }

    /// The snapshot whose archive of this kind has a TOC with the digest `toc`, as long as it is
    /// kept. The first call for a repository reads all its manifests; blocks.
    pub(crate) fn find(
        &self,
        repo: &RepoName,
        kind: ArchiveKind,
        toc: &Digest,
    ) -> Result<Option<SnapshotId>, StoreError> {
        for snapshot in self.store.snapshots(repo)? {
            let key = (repo.clone(), snapshot);
            let is_wanted = |tocs: &Tocs| tocs.get(&kind) == Some(toc);
            let known = self.lock().get(&key).map(is_wanted);
            let is_found = match known {
                Some(is_found) => is_found,
                None => match self.store.manifest(repo, snapshot) {
                    Ok(Some((manifest, _))) => {
                        let tocs = tocs(&manifest);
                        let is_found = is_wanted(&tocs);
                        self.lock().put(key, tocs);
                        is_found
                    }
                    // It was deleted meanwhile.
                    Ok(None) => false,
                    // One that can't be read doesn't keep others from being found.
                    Err(error @ (StoreError::Unreadable { .. } | StoreError::Misplaced { .. })) => {
                        warn!(%repo, %snapshot, error = chain(&error), "A manifest can't be read");
                        false
                    }
                    Err(error) => return Err(error),
                },
            };
            if is_found {
                return Ok(Some(snapshot));
            }
        }
        Ok(None)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<(RepoName, SnapshotId), Tocs>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tocs(manifest: &Manifest) -> Tocs {
    let layouts = manifest.archives.iter();
    layouts.map(|(&kind, layout)| (kind, layout.toc)).collect()
}
