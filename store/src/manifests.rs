//! Manifests: each snapshot has one, written once.

use std::time::SystemTime;

use cachewfs_format::{Digest, Manifest, Pointer, RepoName, SnapshotId};

use super::blocking::run_blocking;
use super::json::{encode, parse};
use super::key::Key;
use super::objects::{Objects, Written};
use super::protect::Protection;
use super::{Store, StoreError, TierError};

impl Store {
    /// Writes a manifest, unless its snapshot has one already. `protection` must cover all its
    /// segments.
    pub async fn put_manifest(
        &self,
        manifest: &Manifest,
        protection: &Protection,
    ) -> Result<(Written, Digest), StoreError> {
        let key = Key::manifest(&self.shelf(&manifest.repo), manifest.snapshot);
        let bytes = encode(&key, manifest.to_json())?;
        // Checked as late as possible: everything before the request counts towards the limit.
        self.check_time(protection, self.notice.manifest_limit())?;
        let written = self.nearest().create(&key, &bytes).await?;
        Ok((written, Digest::of(&bytes)))
    }

    /// Returns the manifest of a snapshot and the digest of its bytes, or `None` if there is no
    /// such snapshot.
    pub async fn manifest(
        &self,
        repo: &RepoName,
        snapshot: SnapshotId,
    ) -> Result<Option<(Manifest, Digest)>, StoreError> {
        self.fitting_manifest(repo, snapshot, |_| true).await
    }

    /// Returns the manifest of a snapshot from the authoritative tier, because a local copy may be
    /// damaged.
    pub(super) async fn authoritative_manifest(
        &self,
        repo: &RepoName,
        snapshot: SnapshotId,
    ) -> Result<Option<(Manifest, Digest)>, StoreError> {
        self.manifest_in(self.authoritative(), repo, snapshot).await
    }

    /// Returns a manifest whose digest should satisfy `fits`. If the local copy is damaged or
    /// doesn't fit, drops it and reads the authoritative tier.
    async fn fitting_manifest(
        &self,
        repo: &RepoName,
        snapshot: SnapshotId,
        fits: impl Fn(&Digest) -> bool + Send,
    ) -> Result<Option<(Manifest, Digest)>, StoreError> {
        let read = self.manifest_in(self.nearest(), repo, snapshot).await;
        let is_good = match &read {
            Ok(Some((_, digest))) => fits(digest),
            Err(StoreError::Unreadable { .. } | StoreError::Misplaced { .. }) => false,
            // Besides damage, a copy may be of a snapshot that another daemon deleted and published
            // again. A missing manifest or an outage is neither: the copy would have been read.
            Ok(None) | Err(_) => true,
        };
        let key = Key::manifest(&self.shelf(repo), snapshot);
        if is_good || !self.tiers.drop_copies(&key).await {
            return read;
        }
        self.manifest_in(self.nearest(), repo, snapshot).await
    }

    async fn manifest_in(
        &self,
        objects: &dyn Objects,
        repo: &RepoName,
        snapshot: SnapshotId,
    ) -> Result<Option<(Manifest, Digest)>, StoreError> {
        let key = Key::manifest(&self.shelf(repo), snapshot);
        let Some(found) = objects.read_whole(&key).await? else {
            return Ok(None);
        };
        let parse = move || {
            let manifest = parse(&key, &found.bytes, Manifest::parse)?;
            Ok::<_, StoreError>((key, manifest, Digest::of(&found.bytes)))
        };
        // On another thread: the manifest of a large repository takes long.
        let (key, manifest, digest) = run_blocking(parse)
            .await
            .unwrap_or(Err(StoreError::Stopping))?;
        if (&manifest.repo, manifest.snapshot) != (repo, snapshot) {
            return Err(StoreError::Misplaced { key: key.boxed() });
        }
        Ok(Some((manifest, digest)))
    }

    /// Returns when the manifest of a snapshot was written, or `None` if there is none.
    pub async fn manifest_written_at(
        &self,
        repo: &RepoName,
        snapshot: SnapshotId,
    ) -> Result<Option<SystemTime>, StoreError> {
        let key = Key::manifest(&self.shelf(repo), snapshot);
        let stat = self.nearest().stat(&key).await?;
        Ok(stat.map(|stat| stat.stored_at))
    }

    /// Returns the manifest that `pointer` names.
    pub async fn current_manifest(
        &self,
        repo: &RepoName,
        pointer: &Pointer,
    ) -> Result<Manifest, StoreError> {
        let key = Key::manifest(&self.shelf(repo), pointer.snapshot);
        let fits = |digest: &Digest| *digest == pointer.manifest;
        match self.fitting_manifest(repo, pointer.snapshot, fits).await? {
            Some((manifest, digest)) if fits(&digest) => Ok(manifest),
            Some(_) => Err(StoreError::WrongDigest { key: key.boxed() }),
            None => Err(TierError::NotFound { key: key.boxed() }.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cachewfs_format::ObjectId;

    use super::*;
    use crate::DiskTier;
    use crate::testing::{manifest, now, protection};

    #[test]
    fn a_manifest_that_belongs_elsewhere_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let tier = DiskTier::create(directory.path(), &directory.path().join("tmp")).unwrap();
        let store = Store::new(tier.clone());
        let repo = RepoName::parse("example.com/a").unwrap();
        let here = SnapshotId::first(ObjectId::from_bytes(&[1; 20]).unwrap());
        let elsewhere = SnapshotId::first(ObjectId::from_bytes(&[2; 20]).unwrap());
        let manifest = manifest(&repo, here, 7);
        now(store.put_manifest(&manifest, &protection(&store, &repo))).unwrap();

        let (from, to) = (
            Key::manifest(&store.shelf(&repo), here),
            Key::manifest(&store.shelf(&repo), elsewhere),
        );
        fs::copy(tier.directory().path(&from), tier.directory().path(&to)).unwrap();

        assert_eq!(
            now(store.manifest(&repo, here)).unwrap().unwrap().0,
            manifest
        );
        let error = now(store.manifest(&repo, elsewhere)).unwrap_err();
        assert!(matches!(error, StoreError::Misplaced { key } if *key == to));
    }
}
