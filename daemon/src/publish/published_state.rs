//! What a publish finds: what is published already, and whether another daemon is about to publish.

use std::sync::Arc;

use cachewfs_format::{Manifest, Pointer, RepoName};

use super::refs::Refs;
use super::{PackLayout, PublishError, PublishOptions, PublishOutcome, Publisher};
use crate::store::{Claim, Lease, StoreError, TierError};

/// What there is to do.
pub(super) enum PublishDecision {
    /// Nothing: this is published.
    Unchanged(PublishOutcome),
    /// Nothing: another daemon, which has this name, is at it.
    HeldBy(Arc<str>),
    /// To publish, in place of what is present.
    Publish(Box<PublishedState>, Option<Lease>),
}

/// What is published of a repository.
pub(super) struct PublishedState {
    pub(super) pointer: Option<Pointer>,
    pub(super) current: Option<Manifest>,
    /// Whether the next snapshot can build on that.
    is_base: bool,
}

impl PublishedState {
    /// What the next snapshot builds on.
    pub(super) fn base(&self) -> Option<&Manifest> {
        self.current.as_ref().filter(|_| self.is_base)
    }

    /// The current snapshot, if it has these refs and nothing has to be laid out anew.
    fn unchanged(&self, refs: &Refs) -> Option<PublishOutcome> {
        let base = self.base()?;
        (base.refs_digest == refs.digest()).then_some(PublishOutcome {
            snapshot: base.snapshot,
            moved: false,
        })
    }
}

impl Publisher {
    /// Looks what is published; if that isn't a mirror with these refs, claims the publish.
    pub(super) fn claim_if_changed(
        &self,
        repo: &RepoName,
        refs: &Refs,
        options: PublishOptions,
    ) -> Result<PublishDecision, PublishError> {
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
        // Who had the lease until now may have published the same.
        let pointer = self.store.pointer(repo)?;
        if pointer != state.pointer {
            state = self.read_state(repo, pointer, (refs, options))?;
            if let Some(published) = state.unchanged(refs) {
                return Ok(PublishDecision::Unchanged(published));
            }
        }
        Ok(PublishDecision::Publish(Box::new(state), lease))
    }

    /// What `pointer` says is published.
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
        // What isn't whole any more is no base to build on.
        let is_base = match &current {
            Some(current) if options.layout == PackLayout::Incremental => {
                let is_same = current.refs_digest == refs.digest();
                // Nobody pays for looking as long as nothing moves.
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

    /// The manifest of what is current; none if that was being forgotten while it was published.
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

    /// Whether all that `current` names is there.
    fn has_all_segments(&self, current: &Manifest) -> Result<bool, PublishError> {
        let stored = self.store.segments(&current.repo)?;
        Ok(current.segments().is_subset(&stored))
    }

    /// Refuses to go on if somebody has published under a later lease.
    pub(super) fn check_fence(
        &self,
        repo: &RepoName,
        lease: Option<&Lease>,
    ) -> Result<(), PublishError> {
        check_lease(lease)?;
        let Some(lease) = lease else { return Ok(()) };
        let pointer = self.store.pointer(repo)?;
        if pointer.is_some_and(|pointer| pointer.fence > lease.token()) {
            return Err(PublishError::LeaseLost);
        }
        Ok(())
    }
}

/// Refuses to go on once another daemon has taken over what this one does.
pub(super) fn check_lease(lease: Option<&Lease>) -> Result<(), PublishError> {
    match lease {
        Some(lease) if lease.is_lost() => Err(PublishError::LeaseLost),
        _ => Ok(()),
    }
}
