//! [`PublishedState`]: the snapshot that is current when a publish begins.

use cachewfs_format::{Manifest, Pointer, RepoName};

use super::PublishError;
use super::attempt::{PackLayout, PublishOutcome};
use super::refs::Refs;
use crate::store::{Store, StoreError, TierError, wait};

/// The published state of a repository.
#[derive(Debug)]
pub(super) struct PublishedState {
    pub(super) current: Option<Manifest>,
    /// Whether the next snapshot can build on `current`.
    is_base: bool,
}

impl PublishedState {
    /// Reads the state that `pointer` describes, for a publish of `refs`.
    pub(super) fn read(
        (store, repo): (&Store, &RepoName),
        pointer: Option<&Pointer>,
        (refs, layout): (&Refs, PackLayout),
    ) -> Result<Self, PublishError> {
        let current = match pointer {
            Some(pointer) => current(store, repo, pointer)?,
            None => None,
        };
        // A snapshot that lacks a segment must not be a base: the next manifest would name that
        // segment, and the check before it is written would fail.
        let is_base = match &current {
            Some(current) if layout == PackLayout::Incremental => {
                let is_same = current.refs_digest == refs.digest();
                // To check a bucket means to list all segments. While no ref moves, that is
                // skipped, unless this daemon has found damage: an idle repository would pay for a
                // listing once per `fetch_interval`.
                (is_same && !store.may_be_damaged(repo)) || has_all_segments(store, current)?
            }
            _ => false,
        };
        Ok(Self { current, is_base })
    }

    /// Returns the manifest that the next snapshot builds on, if there is one.
    pub(super) fn base(&self) -> Option<&Manifest> {
        self.current.as_ref().filter(|_| self.is_base)
    }

    /// Returns the current snapshot, if it has these refs and can serve as a base.
    ///
    /// A snapshot that can't is published again even if no ref has moved: a segment of it is
    /// missing, or the options ask for a full layout.
    pub(super) fn unchanged(&self, refs: &Refs) -> Option<PublishOutcome> {
        let base = self.base()?;
        (base.refs_digest == refs.digest()).then_some(PublishOutcome {
            snapshot: base.snapshot,
            moved: false,
        })
    }
}

/// Returns the manifest of the current snapshot, or `None` if the store lacks it.
///
/// The store lacks it if an operator ran `forget?store=true` during a publish. The next publish
/// then replaces the pointer instead of failing for good.
fn current(
    store: &Store,
    repo: &RepoName,
    pointer: &Pointer,
) -> Result<Option<Manifest>, PublishError> {
    match wait(store.current_manifest(repo, pointer)) {
        Err(StoreError::Tier(TierError::NotFound { .. })) => Ok(None),
        manifest => Ok(Some(manifest?)),
    }
}

/// Returns whether the store has all segments of `current`.
fn has_all_segments(store: &Store, current: &Manifest) -> Result<bool, PublishError> {
    let stored = wait(store.segments(&current.repo))?;
    Ok(current.segments().is_subset(&stored))
}
