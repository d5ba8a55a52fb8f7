//! Deletes everything that is published of a repository, regardless of what would be kept.

use cachewfs_format::{RepoName, SnapshotId};

use super::key::{Key, Object};
use super::{Store, StoreError};

/// How often writing the deletion notice is tried while other daemons write it.
const TRIES: usize = 10;

impl Store {
    /// Deletes everything that is published of `repo`, with its LFS archives. Segments that another
    /// daemon may be about to name are left to a later collection. The ids of the snapshots stay
    /// noted as used.
    pub async fn delete(&self, repo: &RepoName) -> Result<(), StoreError> {
        let deleted = async {
            self.lfs().delete_published(repo).await?;
            self.delete_published(repo).await
        };
        let deleted = deleted.await;
        self.has_changed();
        deleted
    }

    async fn delete_published(&self, repo: &RepoName) -> Result<(), StoreError> {
        let shelf = self.shelf(repo);
        // First of all the pointer: without it, no reader finds a half deleted snapshot.
        self.nearest().delete(&[Key::pointer(&shelf)]).await?;
        let snapshots: Vec<_> = self.manifests(repo).await?.into_iter().collect();
        self.note_used(repo, &snapshots).await?;
        // No manifest that was written since the listing: its id isn't noted.
        let objects = snapshots.into_iter().map(Object::Manifest);
        self.delete_objects(repo, objects, &|| true).await?;
        Ok(self.tiers.delete_shelf(&shelf).await?)
    }

    /// Notes that no other snapshot may have one of these ids. Leaves a deletion notice as it is.
    pub(super) async fn note_used(
        &self,
        repo: &RepoName,
        ids: &[SnapshotId],
    ) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let (mut deletions, version) = self.deletions(repo).await?;
            if ids.iter().all(|&id| deletions.is_used(id)) {
                return Ok(());
            }
            // Another nonce, so that the new bytes have a version of their own.
            deletions.nonce = deletions.nonce.wrapping_add(1);
            for &id in ids {
                deletions.mark_used(id);
            }
            match self
                .swap_deletions(repo, &deletions, version.as_ref())
                .await
            {
                Err(StoreError::Collecting) => {}
                noted => return noted,
            }
        }
        Err(StoreError::Collecting)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cachewfs_format::ObjectId;

    use super::*;
    use crate::testing::{manifest, now, pointer_to, protection};
    use crate::wrapped::{Call, Wrapped, outage};
    use crate::{BucketTier, DiskTier};

    /// Publishes a snapshot.
    fn publish(store: &Store, repo: &RepoName) -> SnapshotId {
        let id = SnapshotId::first(ObjectId::from_bytes(&[1; 20]).unwrap());
        let protection = protection(store, repo);
        let manifest = manifest(repo, id, 7);
        let (_, digest) = now(store.put_manifest(&manifest, &protection)).unwrap();
        let pointer = pointer_to(id, digest);
        now(store.swap_pointer(repo, (None, &pointer), &protection)).unwrap();
        id
    }

    fn is_used(store: &Store, repo: &RepoName, id: SnapshotId) -> bool {
        protection(store, repo).is_used(id)
    }

    #[test]
    fn a_deleted_repository_leaves_only_its_used_ids() {
        let directory = tempfile::tempdir().unwrap();
        let tier = DiskTier::create(directory.path(), &directory.path().join("tmp")).unwrap();
        let store = Store::new(tier.clone());
        let repo = RepoName::parse("example.com/a").unwrap();
        let of_both = [store.lfs(), store.clone()];
        let id = of_both.clone().map(|store| publish(&store, &repo))[0];

        now(store.delete(&repo)).unwrap();
        now(store.delete(&repo)).unwrap();

        for store in of_both {
            assert!(is_used(&store, &repo, id));
            assert_eq!(now(store.pointer(&repo)).unwrap(), None);
            assert!(now(store.manifest(&repo, id)).unwrap().is_none());
            let left = std::fs::read_dir(tier.directory().directory(&store.shelf(&repo))).unwrap();
            let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
            left.sort();
            left.retain(|name| name != "lfs");
            assert_eq!(left, ["deletions", "deletions.lock"]);
        }
    }

    #[test]
    fn ids_are_noted_before_their_manifests_are_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let repo = RepoName::parse("example.com/a").unwrap();
        let mut deletes_until_it_is_gone = 0;
        for survived in 0..10 {
            let root = directory.path().join(survived.to_string());
            let tier = DiskTier::create(&root, &root.join("tmp")).unwrap();
            let id = publish(&Store::new(tier.clone()), &repo);
            let deletes = AtomicUsize::new(0);
            let dies = Wrapped::new(Arc::new(tier.clone()), move |call| {
                let is_late =
                    call == Call::Delete && deletes.fetch_add(1, Ordering::SeqCst) >= survived;
                if is_late { Err(outage()) } else { Ok(()) }
            });

            let outcome = now(Store::new(BucketTier::new(Arc::new(dies))).delete(&repo));

            let store = Store::new(tier);
            let is_there = now(store.manifest(&repo, id)).unwrap().is_some();
            assert!(is_there || is_used(&store, &repo, id), "{survived}");
            if outcome.is_ok() {
                assert!(!is_there);
                deletes_until_it_is_gone = survived;
                break;
            }
        }
        assert!(deletes_until_it_is_gone > 1, "pointer, manifests");
    }
}
