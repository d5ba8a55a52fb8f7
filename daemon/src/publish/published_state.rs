//! The start of a publish: reading the published state and, if the mirror differs from it, claiming
//! the lease.

use std::sync::Arc;

use cachewfs_format::{Manifest, Pointer, RepoName};

use super::refs::Refs;
use super::{PackLayout, PublishError, PublishOptions, PublishOutcome, Publisher};
use crate::store::{Claim, Lease, StoreError, TierError};

/// The decision at the start of a publish.
pub(super) enum PublishDecision {
    /// Do nothing: the current snapshot has the mirror's state.
    Unchanged(PublishOutcome),
    /// Do nothing: the daemon with this name holds the lease.
    HeldBy(Arc<str>),
    /// Publish a snapshot that replaces this state. There is no lease if leases are off or broken.
    Publish(Box<PublishedState>, Option<Lease>),
}

/// The published state of a repository.
pub(super) struct PublishedState {
    pub(super) pointer: Option<Pointer>,
    pub(super) current: Option<Manifest>,
    /// Whether the next snapshot can build on `current`.
    is_base: bool,
}

impl PublishedState {
    /// Returns the manifest that the next snapshot builds on, if there is one.
    pub(super) fn base(&self) -> Option<&Manifest> {
        self.current.as_ref().filter(|_| self.is_base)
    }

    /// Returns the current snapshot, if it has these refs and can serve as a base.
    ///
    /// A snapshot that can't is published again even if no ref has moved: a segment of it is
    /// missing, or the options ask for a full layout.
    fn unchanged(&self, refs: &Refs) -> Option<PublishOutcome> {
        let base = self.base()?;
        (base.refs_digest == refs.digest()).then_some(PublishOutcome {
            snapshot: base.snapshot,
            moved: false,
        })
    }
}

impl Publisher {
    /// Reads the published state. If its refs differ from `refs`, claims the lease on the publish.
    pub(super) fn claim_if_changed(
        &self,
        repo: &RepoName,
        refs: &Refs,
        options: PublishOptions,
    ) -> Result<PublishDecision, PublishError> {
        // Read without a lease first: most publishes find nothing to do, and an idle repository
        // should cost no writes to the store.
        let mut state = self.read_state(repo, self.store.pointer(repo)?, (refs, options))?;
        if let Some(published) = state.unchanged(refs) {
            return Ok(PublishDecision::Unchanged(published));
        }
        let fence = state.pointer.as_ref().map_or(0, |it| it.fence);
        let ttl = self.config.now().store.lease_ttl;
        let lease = match self.leases.claim(&self.store, repo, (ttl, fence)) {
            Claim::Lease(lease) => Some(lease),
            Claim::None => None,
            Claim::HeldBy(holder) => return Ok(PublishDecision::HeldBy(holder)),
        };
        // Read again under the lease: its previous holder may have published this state meanwhile.
        // The claim has read the lease, which drops the remembered pointer, so this read is fresh.
        let pointer = self.store.pointer(repo)?;
        if pointer != state.pointer {
            state = self.read_state(repo, pointer, (refs, options))?;
            if let Some(published) = state.unchanged(refs) {
                return Ok(PublishDecision::Unchanged(published));
            }
        }
        Ok(PublishDecision::Publish(Box::new(state), lease))
    }

    /// Reads the state that `pointer` describes.
    fn read_state(
        &self,
        repo: &RepoName,
        pointer: Option<Pointer>,
        (refs, options): (&Refs, PublishOptions),
    ) -> Result<PublishedState, PublishError> {
        let current = match &pointer {
            Some(pointer) => self.current(repo, pointer)?,
            None => None,
        };
        // A snapshot that lacks a segment must not be a base: the next manifest would name that
        // segment, and the check before it is written would fail.
        let is_base = match &current {
            Some(current) if options.layout == PackLayout::Incremental => {
                let is_same = current.refs_digest == refs.digest();
                // To check a bucket means to list all segments. While no ref moves, that is
                // skipped, unless this daemon has found damage: an idle repository would pay for a
                // listing once per `fetch_interval`.
                (is_same && !self.store.may_be_damaged(repo)) || self.has_all_segments(current)?
            }
            _ => false,
        };
        Ok(PublishedState {
            pointer,
            current,
            is_base,
        })
    }

    /// Returns the manifest of the current snapshot, or `None` if the store lacks it.
    ///
    /// The store lacks it if an operator ran `forget?store=true` during a publish.
    /// The next publish then replaces the pointer instead of failing for good.
    fn current(
        &self,
        repo: &RepoName,
        pointer: &Pointer,
    ) -> Result<Option<Manifest>, PublishError> {
        match self.store.current_manifest(repo, pointer) {
            Err(StoreError::Tier(TierError::NotFound { .. })) => Ok(None),
            manifest => Ok(Some(manifest?)),
        }
    }

    /// Returns whether the store has all segments of `current`.
    fn has_all_segments(&self, current: &Manifest) -> Result<bool, PublishError> {
        let stored = self.store.segments(&current.repo)?;
        Ok(current.segments().is_subset(&stored))
    }

    /// Fails if another daemon has published under a later lease.
    pub(super) fn check_fence(
        &self,
        repo: &RepoName,
        lease: Option<&Lease>,
    ) -> Result<(), PublishError> {
        check_lease(lease)?;
        // A lease that can't be read counts as held above. The fence in the pointer is a second
        // sign, because each lease has a higher token than all leases before it.
        let Some(lease) = lease else { return Ok(()) };
        let pointer = self.store.pointer(repo)?;
        if pointer.is_some_and(|pointer| pointer.fence > lease.token()) {
            return Err(PublishError::LeaseLost);
        }
        Ok(())
    }
}

/// Fails if another daemon has taken the lease over.
pub(super) fn check_lease(lease: Option<&Lease>) -> Result<(), PublishError> {
    match lease {
        Some(lease) if lease.is_lost() => Err(PublishError::LeaseLost),
        _ => Ok(()),
    }
}
