//! Before a manifest is written: all that it names is there, and nobody is about to delete it.

use std::collections::HashSet;
use std::time::Duration;

use cachewfs_format::{Deletions, RepoName, SegmentId, SnapshotId};

use super::key::Key;
use super::snapshots::parse;
use super::tier::Version;
use super::{Store, StoreError};

/// How often one looks whether what is announced has been deleted.
const PERIOD: Duration = Duration::from_secs(1);

/// What a publish has made sure of, for a short while.
#[derive(Debug)]
pub(crate) struct Secured {
    deletions: Deletions,
    /// Of the store's clock.
    read_at: Duration,
}

impl Secured {
    /// Whether a snapshot had this id that was deleted.
    pub(crate) fn is_used(&self, id: SnapshotId) -> bool {
        self.deletions.is_used(id)
    }
}

impl Store {
    /// Makes sure that `segments` are there, and that neither they nor the manifest of `snapshot`,
    /// if there is one, are about to be deleted; waits where they may be.
    ///
    /// [`StoreError::Gone`] if something isn't there: the snapshot has to be built again.
    pub(crate) fn secure(
        &self,
        repo: &RepoName,
        (snapshot, segments): (Option<SnapshotId>, &HashSet<SegmentId>),
        is_stopping: impl Fn() -> bool,
    ) -> Result<Secured, StoreError> {
        let is_wanted = |deletions: &Deletions| {
            snapshot.is_some_and(|id| deletions.snapshots.contains(&id))
                || deletions.segments.iter().any(|id| segments.contains(id))
        };
        let secured = self.unannounced(repo, is_wanted, is_stopping)?;
        let gone = |key: Key| Err(StoreError::Gone { key: key.boxed() });
        let shelf = self.shelf(repo);
        if let Some(id) = snapshot {
            let key = Key::manifest(&shelf, id);
            if self.authority().stat(&key)?.is_none() {
                return gone(key);
            }
        }
        if !segments.is_empty() {
            let present = self.segments(repo)?;
            if let Some(&id) = segments.difference(&present).next() {
                return gone(Key::segment(&shelf, id));
            }
        }
        Ok(secured)
    }

    /// Reads what is announced until nothing wanted is, or who announced it must have ended.
    fn unannounced(
        &self,
        repo: &RepoName,
        is_wanted: impl Fn(&Deletions) -> bool,
        is_stopping: impl Fn() -> bool,
    ) -> Result<Secured, StoreError> {
        let mut seen: Option<(Option<Version>, Duration)> = None;
        loop {
            let read_at = self.clock.now();
            let (deletions, version) = self.deletions(repo)?;
            let since = match &seen {
                Some((of, since)) if *of == version => *since,
                _ => self.clock.now(),
            };
            let has_ended = read_at.saturating_sub(since) > self.notice.announced();
            if has_ended || !is_wanted(&deletions) {
                return Ok(Secured { deletions, read_at });
            }
            seen = Some((version, since));
            if is_stopping() {
                return Err(StoreError::Stopping);
            }
            self.clock.pause(PERIOD.min(self.notice.0));
        }
    }

    /// What is announced, and which snapshots are gone.
    pub(super) fn deletions(
        &self,
        repo: &RepoName,
    ) -> Result<(Deletions, Option<Version>), StoreError> {
        let key = Key::deletions(&self.shelf(repo));
        match self.authority().read_whole(&key)? {
            Some(found) => {
                let deletions = parse(&key, &found.bytes, Deletions::parse)?;
                Ok((deletions, Some(found.version)))
            }
            None => Ok((Deletions::none(), None)),
        }
    }

    /// Refuses to write what was made sure of too long ago.
    pub(super) fn check_time(&self, secured: &Secured, limit: Duration) -> Result<(), StoreError> {
        if self.clock.now().saturating_sub(secured.read_at) > limit {
            return Err(StoreError::TooSlow);
        }
        Ok(())
    }
}
