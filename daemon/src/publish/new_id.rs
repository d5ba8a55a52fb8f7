//! [`NewId`]: how the id of a new manifest is chosen.

use std::time::{Duration, Instant};

use cachewfs_format::{Digest, Manifest, Pointer, SnapshotId};

use super::PublishError;
use crate::store::{Protection, Store, wait};

/// How long a publish waits for another daemon between that daemon's manifest and its pointer swap.
/// These are a few requests to a bucket.
const MAX_POINTER_WAIT: Duration = Duration::from_secs(3);
/// How much the clocks of two daemons may differ, in seconds.
const MAX_CLOCK_SKEW: u64 = 10;

/// How the id of a new manifest is chosen.
#[derive(Clone, Copy, Debug)]
pub(super) enum NewId<'a> {
    /// The id that the manifest has. For LFS archives, whose bytes depend on the commit alone: the
    /// id of a deleted archive may be used again.
    Fixed,
    /// The first id of the commit that no snapshot has, and that no deleted snapshot had. For a
    /// snapshot that is built on this one, if there is one.
    Unused(Option<&'a Manifest>),
}

impl NewId<'_> {
    /// Returns the first id whose manifest isn't in the store.
    ///
    /// Fails with [`PublishError::Raced`] if another daemon started from the same pointer, has
    /// written its manifest and then moves the pointer. Waits for that for [`MAX_POINTER_WAIT`] at
    /// most.
    pub(super) fn unwritten(
        self,
        store: &Store,
        new: &Manifest,
        expected: Option<&Pointer>,
    ) -> Result<SnapshotId, PublishError> {
        let Self::Unused(base) = self else {
            return Ok(new.snapshot);
        };
        let deadline = Instant::now() + MAX_POINTER_WAIT;
        let mut ids = ids_for(new, base);
        loop {
            let id = ids.next().expect("there is always another id");
            let Some((taken, _)) = wait(store.manifest(&new.repo, id))? else {
                return Ok(id);
            };
            // If the manifest under this id is old, its snapshot was current earlier, or its
            // publish lost a race: take the next id. If it is new, another daemon is between its
            // manifest and its pointer. Taking the next id then would give one state two snapshots,
            // one of which never becomes current. The wait has a limit, because that daemon may
            // have been killed.
            let is_superseded = expected.is_some_and(|pointer| is_older(&taken, pointer));
            while !is_superseded && Instant::now() < deadline {
                if wait(store.pointer(&new.repo))?.as_ref() != expected {
                    return Err(PublishError::Raced);
                }
                sleep_between_reads();
            }
        }
    }

    /// Returns the id of the manifest. `unwritten` is the result of [`NewId::unwritten`].
    ///
    /// Without [`NewId::Fixed`], an id must never name two snapshots: its immutable URL would then
    /// serve different bytes.
    pub(super) fn free(
        self,
        store: &Store,
        (new, unwritten): (&Manifest, SnapshotId),
        protection: &Protection,
    ) -> Result<SnapshotId, PublishError> {
        let Self::Unused(base) = self else {
            return Ok(new.snapshot);
        };
        let mut ids = ids_for(new, base);
        let id = loop {
            let id = ids.next().expect("there is always another id");
            let is_taken =
                protection.is_used(id) || wait(store.manifest_written_at(&new.repo, id))?.is_some();
            if !is_taken {
                break id;
            }
        };
        // The first id was free, and no deleted snapshot had it. So another daemon has just written
        // its manifest under this id, and will move the pointer.
        if id != unwritten && !protection.is_used(unwritten) {
            return Err(PublishError::Raced);
        }
        Ok(id)
    }
}

/// Returns the ids that a new snapshot may have: the commit alone, then the commit with a digest.
///
/// The second id has the digest of the refs. Each further id has a digest of the digest before it
/// and the previous snapshot's id. Further ids are needed if the refs return to an earlier state:
/// the archive then differs from the earlier archive, because it keeps the objects that came in
/// between.
fn ids_for(new: &Manifest, base: Option<&Manifest>) -> impl Iterator<Item = SnapshotId> {
    let commit = new.snapshot.commit();
    let from = base.map(|base| base.snapshot.to_string());
    let from = from.unwrap_or_default();
    let next = move |digest: &Digest| Some(Digest::of(format!("{digest} {from}").as_bytes()));
    let later = std::iter::successors(Some(new.refs_digest), next)
        .map(move |digest| SnapshotId::later(commit, &digest));
    std::iter::once(SnapshotId::first(commit)).chain(later)
}

/// Returns whether a manifest was written before the snapshot of `pointer` was published.
fn is_older(manifest: &Manifest, pointer: &Pointer) -> bool {
    let id = manifest.snapshot;
    // The pointer remembers a limited number of snapshots. For older ones and for lost races, only
    // the times tell, and different daemons wrote them.
    let was_current =
        pointer.snapshot == id || pointer.replaced.iter().any(|old| old.snapshot == id);
    was_current || manifest.created_at + MAX_CLOCK_SKEW < pointer.published_at
}

#[expect(
    clippy::disallowed_methods,
    reason = "publishes run on threads of their own, and the caller has a deadline"
)]
fn sleep_between_reads() {
    std::thread::sleep(Duration::from_millis(50));
}
