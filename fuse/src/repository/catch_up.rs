//! Catching up: moves a repository of the mount to the newest snapshot of the daemon.
//!
//! git reads refs first and opens packs later. The switch therefore has an order, and the kernel is
//! told after each step:
//!
//! ```text
//! step               refs, index, work tree   packs and commit-graph
//! before             old                      old
//! 1  new packs       old                      old + new
//! 2  new refs        new                      new + old ones, now superseded
//! 3  two min. later  new                      new
//! ```
//!
//! Invariant: every object that a visible ref names is visible. A directory that exists before and
//! after the switch keeps its entry in the kernel, so that no process loses its current directory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cachewfs_base::{chain, jitter, seconds_since_epoch};
use cachewfs_format::SnapshotId;
use tokio::time::sleep;
use tracing::{info, warn};

use super::load::FirstPoll;
use super::{RepoError, Repositories, Repository, View};
use crate::fetch::{TailAnswer, current_tail};
use crate::segment::{Segment, fetch_whole};
use crate::traffic::Purpose;
use crate::view::{Generation, LoadError, StaticTree};

/// How long superseded packs stay visible before they are hidden.
///
/// git lists the pack directory once and opens the packs later. If a listed pack has gone, git
/// lists the directory again, so the grace period only saves it that work.
const SUPERSEDED_GRACE: Duration = Duration::from_mins(2);

impl Repositories {
    /// Starts the background tasks of a repository: loading the index, hydration, and polling.
    pub(super) fn start_following(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        first_poll: FirstPoll,
    ) {
        let backend = self.segments.backend();
        self.start_loading_work_tree(repository);
        self.start_hydration(repository);
        let (repositories, repository) = (Arc::clone(self), Arc::clone(repository));
        let ending = backend.ending.clone();
        backend.tasks.spawn(async move {
            let mut is_due = first_poll == FirstPoll::Now;
            loop {
                // `jitter` returns half to all of its argument, so the mean is `poll_interval`.
                let interval = if std::mem::take(&mut is_due) {
                    Duration::ZERO
                } else {
                    jitter(repositories.options.poll_interval * 4 / 3)
                };
                tokio::select! {
                    () = sleep(interval) => {}
                    () = ending.cancelled() => return,
                }
                tokio::select! {
                    // An error is logged where it is noted.
                    outcome = repositories.catch_up(&repository) => drop(outcome),
                    () = ending.cancelled() => return,
                }
            }
        });
    }

    /// Asks the daemon for the newest snapshot, and switches to it if it differs from the one that
    /// is shown. Returns the id of the snapshot that is shown then.
    pub(crate) async fn catch_up(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
    ) -> Result<SnapshotId, RepoError> {
        let _one_at_a_time = repository.catching_up.lock().await;
        let outcome = self.catch_up_alone(repository).await;
        let outcome =
            outcome.map_err(|error| RepoError::from_load(repository.name.as_str(), error));
        let error = outcome.as_ref().err().map(|error| chain(error));
        let is_new = repository.note_error(error.clone());
        // An outage is logged once for all repositories, and another error once for each.
        if let Some(error) = error
            && is_new
            && !outcome.as_ref().is_err_and(RepoError::is_outage)
        {
            let repo = &repository.name;
            warn!(
                %repo,
                error,
                "Can't catch up with the daemon's newest snapshot of {repo}"
            );
        }
        if matches!(outcome, Err(RepoError::NotFound { .. })) {
            // This mount goes on showing it. A later one must not show it again.
            self.drop_kept(&repository.name);
        }
        if outcome.is_ok() {
            repository
                .checked_at
                .store(seconds_since_epoch(), Ordering::Relaxed);
        }
        outcome
    }

    /// Does the work of [`Repositories::catch_up`]. The caller holds `catching_up`.
    async fn catch_up_alone(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
    ) -> Result<SnapshotId, LoadError> {
        let old = repository.view().generation;
        let source = &self.segments.backend().source;
        let tail_len = crate::view::TAIL_LEN;
        let etag = Some(old.etag.as_str());
        let request = current_tail(&**source, &repository.name, tail_len, etag);
        let TailAnswer::Tail(tail) = self.reachability.observe(request).await? else {
            return Ok(old.snapshot);
        };
        if tail.etag == old.etag {
            return Ok(old.snapshot);
        }
        let loaded =
            Generation::load(&repository.name, tail, &self.segments, Purpose::Background).await?;
        let (new, tail) = loaded;
        let new = Arc::new(new);
        // Fetched before the switch. If fetching fails, the old generation stays, and the next poll
        // starts over. After the switch, the first git command needn't wait for these segments.
        fetch_whole(&new_small_packs(&old, &new), Purpose::Background).await?;
        if old.loaded_work_tree().is_some() {
            new.work_tree(Purpose::Background).await?;
        }
        self.switch(repository, &old, &new).await;
        self.view_changed.notify_one();
        info!(repo = %repository.name, snapshot = %new.snapshot, "Caught up {}", repository.name);
        repository.catch_ups.fetch_add(1, Ordering::Relaxed);
        self.start_hydration(repository);
        self.keep_new(repository, tail);
        Ok(new.snapshot)
    }

    /// Switches from `old` to `new`: shows the objects of `new` first, then its refs.
    async fn switch(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        old: &Arc<Generation>,
        new: &Arc<Generation>,
    ) {
        let _not_handed_over = self.switching.read().await;
        // Step 1: all packs beside the old refs. Based on the objects that are shown, which include
        // packs superseded by an earlier switch.
        let before = repository.view();
        let mut union = (*before.objects).clone();
        for (path, file) in new.objects.files() {
            if path.starts_with(b"objects/") {
                union.add_file(path, file.content.clone(), file.mtime);
            }
        }
        let union = Arc::new(union);
        repository.show(View {
            generation: Arc::clone(old),
            objects: Arc::clone(&union),
        });
        // Awaited before step 2. Otherwise the kernel could serve a cached listing without the
        // new packs to a git that has already read a new ref.
        self.invalidate(repository, &before).await;

        // Step 2: the new refs, index and work tree.
        self.show_switched(repository, new, &union).await;
        // Step 3.
        self.hide_superseded_later(repository);
    }

    /// Shows `generation` with its own objects and those of `shown` that are in their grace period.
    async fn show_switched(
        &self,
        repository: &Arc<Repository>,
        generation: &Arc<Generation>,
        shown: &StaticTree,
    ) {
        let before = repository.view();
        let objects = Arc::new(repository.with_superseded(&generation.objects, shown));
        repository.show(View {
            generation: Arc::clone(generation),
            objects,
        });
        self.invalidate(repository, &before).await;
    }

    /// Makes the kernel drop the cached names that differ between `before` and the current view.
    async fn invalidate(&self, repository: &Arc<Repository>, before: &View) {
        let Some(invalidator) = self.invalidator.get().cloned() else {
            // The session doesn't run yet, or a test has none: the kernel has cached nothing.
            return;
        };
        let (repository, before) = (Arc::clone(repository), before.clone());
        let now = repository.view();
        // The two work trees are compared. A reader may have loaded the old one after this catch-up
        // decided not to load the new one.
        if before.generation.loaded_work_tree().is_some()
            && let Err(error) = now.generation.work_tree(Purpose::Background).await
        {
            let (repo, error) = (&repository.name, &error as &dyn std::error::Error);
            // The invalidator then drops all names of the old work tree.
            warn!(
                %repo, error,
                "Can't load the new index of {repo}: dropping all cached names of its work tree"
            );
        }
        // Blocks while the kernel holds a directory's lock. A lookup holds it while it waits for
        // this process, so this must not block a runtime thread that answers lookups.
        let invalidation = tokio::task::spawn_blocking(move || {
            invalidator.invalidate(&repository.name, &before, &now);
        });
        invalidation.await.ok();
    }

    /// Hides superseded packs after their grace period.
    pub(super) fn hide_superseded_later(self: &Arc<Self>, repository: &Arc<Repository>) {
        let (repositories, repository) = (Arc::clone(self), Arc::clone(repository));
        let backend = self.segments.backend();
        let ending = backend.ending.clone();
        backend.tasks.spawn(async move {
            tokio::select! {
                () = sleep(SUPERSEDED_GRACE) => {}
                () = ending.cancelled() => return,
            }
            // Without this lock, a catch-up could switch between the next two statements, and the
            // second would undo the switch. Packs superseded by a later switch stay visible,
            // because each has a time of its own.
            let _one_at_a_time = repository.catching_up.lock().await;
            let _not_handed_over = repositories.switching.read().await;
            let view = repository.view();
            repositories
                .show_switched(&repository, &view.generation, &view.objects)
                .await;
            repositories.view_changed.notify_one();
        });
    }
}

impl Repository {
    /// Returns `objects`, and those files of `shown` that left the snapshot less than
    /// [`SUPERSEDED_GRACE`] ago.
    fn with_superseded(&self, objects: &StaticTree, shown: &StaticTree) -> StaticTree {
        let mut superseded = self.superseded.lock();
        let now = Instant::now();
        let mut kept = HashMap::new();
        let mut combined = objects.clone();
        for (path, file) in shown.files() {
            if !path.starts_with(b"objects/") || objects.get(path).is_some() {
                continue;
            }
            // A file keeps the time at which it was first found missing. Otherwise pushes in quick
            // succession would keep it visible for good, and git would search ever more packs.
            let since = superseded.get(path).copied().unwrap_or(now);
            if now.duration_since(since) < SUPERSEDED_GRACE {
                combined.add_file(path, file.content.clone(), file.mtime);
                kept.insert(path.to_vec(), since);
            }
        }
        // Files that came back into the snapshot, or that are hidden now, are forgotten.
        *superseded = kept;
        combined
    }
}

/// Returns the segments to fetch before the refs of `new` are shown: new increments, indexes, and
/// commit-graphs. Other packs are fetched when they are read: a repack makes large ones.
fn new_small_packs(old: &Generation, new: &Generation) -> Vec<Arc<Segment>> {
    let known: std::collections::HashSet<_> = old
        .segments
        .iter()
        .map(|segment| segment.record().id)
        .collect();
    new.segments
        .iter()
        .filter(|segment| !known.contains(&segment.record().id))
        .filter(|segment| segment.record().role.is_fetched_before_refs())
        .cloned()
        .collect()
}
