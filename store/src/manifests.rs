//! Manifests: each snapshot has one, written once.

use std::time::SystemTime;

use cachewfs_format::{Digest, Manifest, Pointer, RepoName, SnapshotId};

use super::json::{encode, parse};
use super::key::Key;
use super::objects::{Objects, Written};
use super::protect::Protection;
use super::{Store, StoreError, TierError};

impl Store {
    /// Writes a manifest, unless its snapshot has one already. `protection` must cover all its
    /// segments.
    pub fn put_manifest(
        &self,
        manifest: &Manifest,
        protection: &Protection,
    ) -> Result<(Written, Digest), StoreError> {
        let key = Key::manifest(&self.shelf(&manifest.repo), manifest.snapshot);
        let bytes = encode(&key, manifest.to_json())?;
        // Checked as late as possible: everything before the request counts towards the limit.
        self.check_time(protection, self.notice.manifest_limit())?;
        let written = self.nearest().create(&key, &bytes)?;
        Ok((written, Digest::of(&bytes)))
    }

    /// Returns the manifest of a snapshot and the digest of its bytes, or `None` if there is no
    /// such snapshot.
    pub fn manifest(
        &self,
        repo: &RepoName,
        snapshot: SnapshotId,
    ) -> Result<Option<(Manifest, Digest)>, StoreError> {
        self.fitting_manifest(repo, snapshot, |_| true)
    }

    /// Returns the manifest of a snapshot from the authoritative tier, because a local copy may be
    /// damaged.
    pub(super) fn authoritative_manifest(
        &self,
        repo: &RepoName,
        snapshot: SnapshotId,
    ) -> Result<Option<(Manifest, Digest)>, StoreError> {
        self.manifest_in(self.authoritative(), repo, snapshot)
    }

    /// Returns a manifest whose digest should satisfy `fits`. If the local copy is damaged or
    /// doesn't fit, drops it and reads the authoritative tier.
    fn fitting_manifest(
        &self,
        repo: &RepoName,
        snapshot: SnapshotId,
        fits: impl Fn(&Digest) -> bool,
    ) -> Result<Option<(Manifest, Digest)>, StoreError> {
        let read = self.manifest_in(self.nearest(), repo, snapshot);
        let is_good = match &read {
            Ok(Some((_, digest))) => fits(digest),
            Err(StoreError::Unreadable { .. } | StoreError::Misplaced { .. }) => false,
            // Besides damage, a copy may be of a snapshot that another daemon deleted and published
            // again. A missing manifest or an outage is neither: the copy would have been read.
            Ok(None) | Err(_) => true,
        };
        let key = Key::manifest(&self.shelf(repo), snapshot);
        if is_good || !self.tiers.drop_copies(&key) {
            return read;
        }
        self.manifest_in(self.nearest(), repo, snapshot)
    }

    fn manifest_in(
        &self,
        objects: &dyn Objects,
        repo: &RepoName,
        snapshot: SnapshotId,
    ) -> Result<Option<(Manifest, Digest)>, StoreError> {
        let key = Key::manifest(&self.shelf(repo), snapshot);
        let Some(found) = objects.read_whole(&key)? else {
            return Ok(None);
        };
        let manifest = parse(&key, &found.bytes, Manifest::parse)?;
        if (&manifest.repo, manifest.snapshot) != (repo, snapshot) {
            return Err(StoreError::Misplaced { key: key.boxed() });
        }
        Ok(Some((manifest, Digest::of(&found.bytes))))
    }

    /// Returns when the manifest of a snapshot was written, or `None` if there is none.
    pub fn manifest_written_at(
        &self,
        repo: &RepoName,
        snapshot: SnapshotId,
    ) -> Result<Option<SystemTime>, StoreError> {
        let key = Key::manifest(&self.shelf(repo), snapshot);
        let stat = self.nearest().stat(&key)?;
        Ok(stat.map(|stat| stat.stored_at))
    }

    /// Returns the manifest that `pointer` names.
    pub fn current_manifest(
        &self,
        repo: &RepoName,
        pointer: &Pointer,
    ) -> Result<Manifest, StoreError> {
        let key = Key::manifest(&self.shelf(repo), pointer.snapshot);
        let fits = |digest: &Digest| *digest == pointer.manifest;
        match self.fitting_manifest(repo, pointer.snapshot, fits)? {
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
    use crate::testing::{manifest, protection};

    #[test]
    fn a_manifest_that_belongs_elsewhere_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let tier = DiskTier::create(directory.path(), &directory.path().join("tmp")).unwrap();
        let store = Store::new(tier.clone());
        let repo = RepoName::parse("example.com/a").unwrap();
        let here = SnapshotId::first(ObjectId::from_bytes(&[1; 20]).unwrap());
        let elsewhere = SnapshotId::first(ObjectId::from_bytes(&[2; 20]).unwrap());
        let manifest = manifest(&repo, here, 7);
        store
            .put_manifest(&manifest, &protection(&store, &repo))
            .unwrap();

        let (from, to) = (
            Key::manifest(&store.shelf(&repo), here),
            Key::manifest(&store.shelf(&repo), elsewhere),
        );
        fs::copy(tier.path(&from), tier.path(&to)).unwrap();

        assert_eq!(store.manifest(&repo, here).unwrap().unwrap().0, manifest);
        let error = store.manifest(&repo, elsewhere).unwrap_err();
        assert!(matches!(error, StoreError::Misplaced { key } if *key == to));
    }
}
