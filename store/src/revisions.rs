//! [`RevisionIndex`]: finds a snapshot by the digest of an archive's TOC. It needs only the store,
//! so every replica can.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use cachewfs_base::chain;
use cachewfs_format::{ArchiveKind, Digest, Manifest, RepoName, SnapshotId};
use lru::LruCache;
use parking_lot::Mutex;
use tracing::warn;

use super::{Store, StoreError};

/// At most this many snapshots are remembered, at about 200 bytes each. The manifest of a large
/// repository takes long to parse, and requests may name revisions that don't exist.
const MAX_KNOWN: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not 0");

type Tocs = BTreeMap<ArchiveKind, Digest>;

/// Which snapshot has an archive whose TOC has a given digest. It is filled by lookups.
#[derive(Debug)]
pub struct RevisionIndex {
    store: Store,
    known: Mutex<LruCache<(RepoName, SnapshotId), Tocs>>,
}

impl RevisionIndex {
    pub fn new(store: Store) -> Self {
        Self {
            store,
            known: Mutex::new(LruCache::new(MAX_KNOWN)),
        }
    }

    /// Returns the snapshot whose archive of this kind has a TOC with the digest `toc`, or `None`
    /// if there is none any more. The first call for a repository reads all its manifests.
    pub async fn find(
        &self,
        repo: &RepoName,
        kind: ArchiveKind,
        toc: &Digest,
    ) -> Result<Option<SnapshotId>, StoreError> {
        for snapshot in self.store.snapshots(repo).await? {
            let key = (repo.clone(), snapshot);
            let is_wanted = |tocs: &Tocs| tocs.get(&kind) == Some(toc);
            let known = self.known.lock().get(&key).map(is_wanted);
            let is_found = match known {
                Some(is_found) => is_found,
                None => match self.store.manifest(repo, snapshot).await {
                    Ok(Some((manifest, _))) => {
                        let tocs = tocs(&manifest);
                        let is_found = is_wanted(&tocs);
                        self.known.lock().put(key, tocs);
                        is_found
                    }
                    // It has been deleted since the listing.
                    Ok(None) => false,
                    // A damaged manifest must not keep the other snapshots from being found.
                    Err(error @ (StoreError::Unreadable { .. } | StoreError::Misplaced { .. })) => {
                        let error = chain(&error);
                        warn!(%repo, %snapshot, error, "Can't read a manifest: skipping it");
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
}

fn tocs(manifest: &Manifest) -> Tocs {
    let layouts = manifest.archives.iter();
    layouts.map(|(&kind, layout)| (kind, layout.toc)).collect()
}
