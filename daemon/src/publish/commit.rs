//! [`Commit`]: how a publish replaces the pointer of a shelf. Snapshots and LFS archives are built
//! differently, and published in this one way.
//!
//! ```text
//! look ─► claim the lease ─► look again ─► build ─► check lease and pointer ─► store segments
//!   ─► check the fence ─► choose the id ─► protect segments ─► write manifest ─► swap pointer
//! ```
//!
//! No published state is lost, because the pointer moves by compare-and-swap. The lease only saves
//! work: without it, two daemons may build one snapshot, and one of them throws its work away.

use std::collections::HashSet;
use std::ops::ControlFlow;

use cachewfs_format::{ArchiveSummary, Digest, Manifest, Pointer, RepoName, SegmentId, SnapshotId};

use super::PublishError;
use super::attempt::Attempt;
use super::new_id::NewId;
use crate::base::seconds_since_epoch;
use crate::config::Config;
use crate::mirror::Git;
use crate::store::{
    Claim, Collection, Lease, Leases, NewSegment, Protection, Store, StoreError, Written,
    log_collected, log_failed_collection, wait,
};

/// The shelf that a publish writes to, and what it needs for that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    /// The store of the snapshots, or that of the LFS archives.
    pub(super) store: &'a Store,
    pub(super) repo: &'a RepoName,
    pub(super) leases: &'a Leases,
    pub(super) config: &'a Config,
    /// Says when to stop.
    pub(super) git: &'a Git,
}

/// A publish that replaces the pointer with which it began, or fails.
#[derive(Debug)]
pub(super) struct Commit<'a> {
    target: Target<'a>,
    pointer: Option<Pointer>,
    /// `None` before the lease is claimed, and if leases are off or can't be used.
    lease: Option<Lease>,
}

impl<'a> Commit<'a> {
    /// Publishes what `build` builds, unless `look` finds that nothing has to be built, or another
    /// daemon publishes.
    ///
    /// `look` is called with the present pointer. If another daemon has moved the pointer by the
    /// time this one has the lease, `look` is called again.
    pub(super) fn attempt<T, S, E: From<StoreError>>(
        target: Target<'a>,
        mut look: impl FnMut(&Self) -> Result<ControlFlow<T, S>, E>,
        build: impl FnOnce(&Self, S) -> Result<T, E>,
    ) -> Result<Attempt<T>, E> {
        let Target { store, repo, .. } = target;
        // The first look is without a lease: most publishes find nothing to do, and an idle
        // repository should cost no writes to the store.
        let mut commit = Self {
            target,
            pointer: wait(store.pointer(repo))?,
            lease: None,
        };
        let mut state = match look(&commit)? {
            ControlFlow::Break(done) => return Ok(Attempt::Done(done)),
            ControlFlow::Continue(state) => state,
        };
        let terms = (target.config.store.lease_ttl, commit.fence());
        commit.lease = match wait(target.leases.claim(store, repo, terms)) {
            Claim::Lease(lease) => Some(lease),
            Claim::None => None,
            Claim::HeldBy(holder) => return Ok(Attempt::HeldBy(holder)),
        };
        // Read again under the lease: its previous holder may just have published. The claim has
        // read the lease, which drops the remembered pointer, so this read is fresh.
        let pointer = wait(store.pointer(repo))?;
        if pointer != commit.pointer {
            commit.pointer = pointer;
            state = match look(&commit)? {
                ControlFlow::Break(done) => return Ok(Attempt::Done(done)),
                ControlFlow::Continue(state) => state,
            };
        }
        // The lease is released after the pointer has moved: the next daemon that claims it finds
        // the new snapshot.
        build(&commit, state).map(Attempt::Done)
    }

    /// Returns the pointer that the publish replaces.
    pub(super) fn pointer(&self) -> Option<&Pointer> {
        self.pointer.as_ref()
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Stores `segments`, writes the manifest and makes it current. Returns the number of bytes
    /// that are new in the store.
    ///
    /// Fails with [`PublishError::Raced`] or [`PublishError::LeaseLost`] if another daemon was
    /// faster.
    pub(super) fn finish(
        &self,
        manifest: &mut Manifest,
        segments: Vec<NewSegment>,
        id: NewId<'_>,
    ) -> Result<u64, PublishError> {
        let Target { store, repo, .. } = self.target;
        // Both checks come before the upload, which is expensive: if another daemon has published
        // meanwhile, the swap of the pointer would fail anyway.
        self.check_lease()?;
        if wait(store.pointer(repo))? != self.pointer {
            return Err(PublishError::Raced);
        }
        let new_bytes = wait(store.put_segments(repo, segments))?;
        self.check_fence()?;
        // This may wait for some seconds, so it comes before the segments are protected: the
        // protection lasts only a short time, in which the manifest must be written.
        let unwritten = id.unwritten(store, manifest, self.pointer())?;
        // A manifest in the store must always have all its segments. A collector may have announced
        // that it deletes some of these, because no manifest names them yet. So the publish reads
        // the deletion notices and checks that the segments are there, and only then writes the
        // manifest.
        let protection = self.protect(None, &manifest.segments())?;
        manifest.snapshot = id.free(store, (manifest, unwritten), &protection)?;
        let (written, digest) = wait(store.put_manifest(manifest, &protection))?;
        // A manifest is only created, never replaced: of two daemons that chose one id, one loses.
        if written == Written::TooLate {
            return Err(PublishError::Raced);
        }
        self.point_to((manifest, digest), &protection)?;
        Ok(new_bytes)
    }

    /// Makes a snapshot current that was published before, so that only the pointer moves.
    pub(super) fn return_to(&self, snapshot: SnapshotId) -> Result<(), PublishError> {
        // Protected before it is read: a collector may be about to delete this manifest. Segments
        // need no protection of their own, because they are deleted after their manifest.
        let protection = self.protect(Some(snapshot), &HashSet::new())?;
        let manifest = wait(self.target.store.manifest(self.target.repo, snapshot))?;
        let (manifest, digest) = manifest.ok_or(PublishError::Raced)?;
        self.point_to((&manifest, digest), &protection)
    }

    fn protect(
        &self,
        snapshot: Option<SnapshotId>,
        segments: &HashSet<SegmentId>,
    ) -> Result<Protection, PublishError> {
        let Target {
            store, repo, git, ..
        } = self.target;
        Ok(wait(store.protect(repo, (snapshot, segments), || {
            git.is_stopping()
        }))?)
    }

    /// Makes the snapshot of a manifest in the store current, then collects garbage if the store is
    /// a directory.
    fn point_to(
        &self,
        (manifest, digest): (&Manifest, Digest),
        protection: &Protection,
    ) -> Result<(), PublishError> {
        let Target { store, repo, .. } = self.target;
        let expected = self.pointer();
        let archives = manifest
            .archives
            .iter()
            .map(|(&kind, layout)| {
                (
                    kind,
                    ArchiveSummary {
                        toc: layout.toc,
                        size: layout.size,
                    },
                )
            })
            .collect();
        // A daemon that stood still for a while learns here that its lease has expired. This check
        // isn't atomic with the swap and needn't be: the compare-and-swap below decides.
        self.check_lease()?;
        let published_at = seconds_since_epoch();
        let replaced = expected.map(|old| old.replaced_by(manifest.snapshot, published_at));
        let pointer = Pointer {
            version: Pointer::VERSION,
            snapshot: manifest.snapshot,
            manifest: digest,
            archives,
            published_at,
            replaced: replaced.unwrap_or_default(),
            notice: manifest.notice.clone(),
            // The fence never goes down. A daemon with an older lease finds a fence above its
            // token.
            fence: self.fence().max(self.lease().map_or(0, Lease::token)),
        };
        if wait(store.swap_pointer(repo, (expected, &pointer), protection))? == Written::TooLate {
            return Err(PublishError::Raced);
        }
        if store.collects_without_waiting() {
            self.collect();
        }
        Ok(())
    }

    /// Collects garbage. A failure is only logged: the snapshot is published already.
    fn collect(&self) {
        let Target {
            store,
            repo,
            config,
            git,
            ..
        } = self.target;
        let collection = Collection {
            keep: config.keep,
            is_dry_run: false,
            is_stopping: &|| git.is_stopping(),
        };
        match wait(store.collect(repo, collection)) {
            Ok(collected) => log_collected(repo, &collected),
            Err(error) => log_failed_collection(repo, &error),
        }
    }

    /// Returns the fence of the pointer that the publish replaces.
    fn fence(&self) -> u64 {
        self.pointer().map_or(0, |pointer| pointer.fence)
    }

    /// Fails if another daemon has taken the lease over.
    fn check_lease(&self) -> Result<(), PublishError> {
        match &self.lease {
            Some(lease) if lease.is_lost() => Err(PublishError::LeaseLost),
            _ => Ok(()),
        }
    }

    /// Fails if another daemon has published under a later lease.
    fn check_fence(&self) -> Result<(), PublishError> {
        self.check_lease()?;
        // A lease that can't be read counts as held above. The fence in the pointer is a second
        // sign, because each lease has a higher token than all leases before it.
        let Some(lease) = &self.lease else {
            return Ok(());
        };
        let pointer = wait(self.target.store.pointer(self.target.repo))?;
        if pointer.is_some_and(|pointer| pointer.fence > lease.token()) {
            return Err(PublishError::LeaseLost);
        }
        Ok(())
    }
}
