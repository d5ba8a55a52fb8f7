//! Protecting a publish from garbage collection: before a manifest is written, all its segments
//! exist and no collector is about to delete them.
//!
//! The times and the reason why this is enough are in `clock`.

use std::collections::HashSet;
use std::time::Duration;

use cachewfs_format::{Deletions, RepoName, SegmentId, SnapshotId};

use super::json::parse;
use super::key::Key;
use super::objects::Version;
use super::{Store, StoreError};

/// How often the publisher reads a deletion notice that has an object it needs.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The proof, valid for a short time, that the objects of a publish exist and that no deletion
/// notice has them.
#[derive(Debug)]
pub struct Protection {
    deletions: Deletions,
    /// When the publisher began to read the deletion notice, by the store's clock.
    read_at: Duration,
}

impl Protection {
    /// Returns whether a deleted snapshot had this id. Ids are not used again.
    pub fn is_used(&self, id: SnapshotId) -> bool {
        self.deletions.is_used(id)
    }
}

impl Store {
    /// Makes sure that `segments` and the manifest of `snapshot`, if there is one, exist, and that
    /// no collector is about to delete them. Waits while a deletion notice has one of them.
    ///
    /// Returns [`StoreError::Gone`] if an object doesn't exist: the snapshot has to be built again.
    pub async fn protect(
        &self,
        repo: &RepoName,
        (snapshot, segments): (Option<SnapshotId>, &HashSet<SegmentId>),
        is_stopping: impl Fn() -> bool,
    ) -> Result<Protection, StoreError> {
        let is_wanted = |deletions: &Deletions| {
            snapshot.is_some_and(|id| deletions.snapshots.contains(&id))
                || deletions.segments.iter().any(|id| segments.contains(id))
        };
        // The notice is read first and the objects are looked for afterwards. If a notice was
        // withdrawn before the read, its deletions are over, and a deleted object is missing here.
        // If a notice comes after the read, its collector finds the manifest at its second look.
        let protection = self.wait_out_notice(repo, is_wanted, is_stopping).await?;
        let gone = |key: Key| Err(StoreError::Gone { key: key.boxed() });
        let shelf = self.shelf(repo);
        if let Some(id) = snapshot {
            let key = Key::manifest(&shelf, id);
            if self.authoritative().stat(&key).await?.is_none() {
                return gone(key);
            }
        }
        if !segments.is_empty() {
            let present = self.segments(repo).await?;
            if let Some(&id) = segments.difference(&present).next() {
                return gone(Key::segment(&shelf, id));
            }
        }
        Ok(protection)
    }

    /// Reads the deletion notice until it has no object that this publish needs, or until its
    /// collector must have ended.
    async fn wait_out_notice(
        &self,
        repo: &RepoName,
        is_wanted: impl Fn(&Deletions) -> bool,
        is_stopping: impl Fn() -> bool,
    ) -> Result<Protection, StoreError> {
        let mut seen: Option<(Option<Version>, Duration)> = None;
        loop {
            // Taken before the read: all deadlines of the publisher count from here, and must not
            // count from a later moment than the one whose notice it saw.
            let read_at = self.clock.now();
            let (deletions, version) = self.deletions(repo).await?;
            // `since` is taken after the first read that saw this version, and compared with
            // `read_at`, which is before the last one. Both make the wait longer, never shorter.
            let since = match &seen {
                Some((of, since)) if *of == version => *since,
                _ => self.clock.now(),
            };
            let has_ended = read_at.saturating_sub(since) > self.notice.lifetime();
            if has_ended || !is_wanted(&deletions) {
                return Ok(Protection { deletions, read_at });
            }
            seen = Some((version, since));
            if is_stopping() {
                return Err(StoreError::Stopping);
            }
            self.clock.pause(POLL_INTERVAL.min(self.notice.0)).await;
        }
    }

    /// Returns the deletion notice, which also has the ids of deleted snapshots.
    pub(super) async fn deletions(
        &self,
        repo: &RepoName,
    ) -> Result<(Deletions, Option<Version>), StoreError> {
        let key = Key::deletions(&self.shelf(repo));
        match self.authoritative().read_whole(&key).await? {
            Some(found) => {
                let deletions = parse(&key, &found.bytes, Deletions::parse)?;
                Ok((deletions, Some(found.version)))
            }
            None => Ok((Deletions::none(), None)),
        }
    }

    /// Refuses a write that would begin later than `limit` after the deletion notice was read.
    pub(super) fn check_time(
        &self,
        protection: &Protection,
        limit: Duration,
    ) -> Result<(), StoreError> {
        if self.clock.now().saturating_sub(protection.read_at) > limit {
            return Err(StoreError::TooSlow);
        }
        Ok(())
    }
}
