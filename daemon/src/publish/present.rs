//! What a publish finds: what is published already, and whether another daemon is about to publish.

use std::sync::Arc;

use cachewfs_format::{Manifest, Pointer, RepoName};

use super::refs::Refs;
use super::{Layout, Order, PublishError, Published, Publisher};
use crate::store::{Claim, Lease, StoreError, TierError};

/// What there is to do.
pub(super) enum Found {
    /// Nothing: this is published.
    Unchanged(Published),
    /// Nothing: another daemon, which has this name, is at it.
    HeldBy(Arc<str>),
    /// To publish, in place of what is present.
    New(Box<Present>, Option<Lease>),
}

/// What is published of a repository.
pub(super) struct Present {
    pub(super) pointer: Option<Pointer>,
    pub(super) current: Option<Manifest>,
    /// Whether the next snapshot can build on that.
    is_base: bool,
}

impl Present {
    /// What the next snapshot builds on.
    pub(super) fn base(&self) -> Option<&Manifest> {
        self.current.as_ref().filter(|_| self.is_base)
    }

    /// The current snapshot, if it has these refs and nothing has to be laid out anew.
    fn unchanged(&self, refs: &Refs) -> Option<Published> {
        let base = self.base()?;
        (base.refs_digest == refs.digest()).then_some(Published {
            snapshot: base.snapshot,
            moved: false,
        })
    }
}

impl Publisher {
    /// Looks what is published; if that isn't a mirror with these refs, claims the publish.
    pub(super) fn find(
        &self,
        repo: &RepoName,
        refs: &Refs,
        order: Order,
    ) -> Result<Found, PublishError> {
        let mut present = self.present(repo, self.store.pointer(repo)?, (refs, order))?;
        if let Some(published) = present.unchanged(refs) {
            return Ok(Found::Unchanged(published));
        }
        let fence = present.pointer.as_ref().map_or(0, |it| it.fence);
        let ttl = self.config.now().store.lease_ttl;
        let lease = match self.leases.claim(&self.store, repo, (ttl, fence)) {
            Claim::Lease(lease) => Some(lease),
            Claim::None => None,
            Claim::HeldBy(holder) => return Ok(Found::HeldBy(holder)),
        };
        // Who had the lease until now may have published the same.
        let pointer = self.store.pointer(repo)?;
        if pointer != present.pointer {
            present = self.present(repo, pointer, (refs, order))?;
            if let Some(published) = present.unchanged(refs) {
                return Ok(Found::Unchanged(published));
            }
        }
        Ok(Found::New(Box::new(present), lease))
    }

    /// What `pointer` says is published.
    fn present(
        &self,
        repo: &RepoName,
        pointer: Option<Pointer>,
        (refs, order): (&Refs, Order),
    ) -> Result<Present, PublishError> {
        let current = match &pointer {
            Some(pointer) => self.current(repo, pointer)?,
            None => None,
        };
        // What isn't whole any more is no base to build on.
        let is_base = match &current {
            Some(current) if order.layout == Layout::AsNeeded => {
                let is_same = current.refs_digest == refs.digest();
                // Nobody pays for looking as long as nothing moves.
                (is_same && !self.store.may_be_damaged(repo)) || self.has_base(current)?
            }
            _ => false,
        };
        Ok(Present {
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
    fn has_base(&self, current: &Manifest) -> Result<bool, PublishError> {
        let present = self.store.segments(&current.repo)?;
        Ok(current.segments().is_subset(&present))
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
