//! Following upstream: new packs first, then refs.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use cachewfs_format::{Role, SnapshotId};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{RepoError, Repositories, Repository, View, report};
use crate::fetch::{TailAnswer, current_tail};
use crate::jitter::jitter;
use crate::segment::{Segment, fetch_whole};
use crate::traffic::Purpose;
use crate::view::{Generation, LoadError, StaticTree};

/// How long packs stay visible that a newer snapshot has no more: git looks at a directory of packs
/// now and then, and opens what it found there later. If it comes too late it looks again, so this
/// only saves it that.
const SUPERSEDED_GRACE: Duration = Duration::from_mins(2);

impl Repositories {
    /// Starts what goes on behind a repository: hydration, polling.
    pub(super) fn start_following(self: &Arc<Self>, repository: &Arc<Repository>) {
        let backend = self.segments.backend();
        self.start_loading_work_tree(repository);
        self.start_hydration(repository);
        let (repositories, repository) = (Arc::clone(self), Arc::clone(repository));
        let ending = backend.ending.clone();
        backend.tasks.spawn(async move {
            loop {
                let pause = jitter(repositories.options.poll_interval * 4 / 3);
                tokio::select! {
                    () = sleep(pause) => {}
                    () = ending.cancelled() => return,
                }
                tokio::select! {
                    outcome = repositories.catch_up(&repository) => {
                        if let Err(error) = outcome {
                            let repo = &repository.name;
                            warn!(%repo, error = error.chain(), "Can't catch up {repo}");
                        }
                    }
                    () = ending.cancelled() => return,
                }
            }
        });
    }

    /// Asks the daemon for the current snapshot, and shows it if it is another; gives its id.
    pub(crate) async fn catch_up(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
    ) -> Result<SnapshotId, RepoError> {
        let _one_at_a_time = repository.catching_up.lock().await;
        let outcome = self.catch_up_alone(repository).await;
        let outcome =
            outcome.map_err(|error| RepoError::from_load(repository.name.as_str(), error));
        repository.note_error(outcome.as_ref().err().map(RepoError::chain));
        if outcome.is_ok() {
            repository
                .checked_at
                .store(report::now(), Ordering::Relaxed);
        }
        outcome
    }

    async fn catch_up_alone(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
    ) -> Result<SnapshotId, LoadError> {
        let old = repository.view().generation;
        let source = &self.segments.backend().source;
        let tail_len = crate::view::TAIL_LEN;
        let etag = Some(old.etag.as_str());
        let answer = current_tail(&**source, &repository.name, tail_len, etag).await?;
        let TailAnswer::Tail(tail) = answer else {
            return Ok(old.snapshot);
        };
        if tail.etag == old.etag {
            return Ok(old.snapshot);
        }
        let objects = repository.objects_directory.join("objects");
        let new = Generation::load(
            &repository.name,
            tail,
            &self.segments,
            &objects,
            Purpose::Background,
        )
        .await?;
        let new = Arc::new(new);
        fetch_whole(&new_small_packs(&old, &new), Purpose::Background).await?;
        if old.loaded_work_tree().is_some() {
            new.work_tree(Purpose::Background).await?;
        }
        self.switch(repository, &old, &new).await;
        info!(repo = %repository.name, snapshot = %new.snapshot, "Caught up {}", repository.name);
        repository.catch_ups.fetch_add(1, Ordering::Relaxed);
        self.start_hydration(repository);
        self.renew_pin(repository);
        Ok(new.snapshot)
    }

    /// Shows `new` in place of `old`: its objects first, so that no ref is ever seen without them.
    async fn switch(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        old: &Arc<Generation>,
        new: &Arc<Generation>,
    ) {
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
        self.invalidate(repository, &before).await;

        self.show_switched(repository, new, &union).await;
        self.hide_superseded_later(repository);
    }

    /// Shows `generation` with its own objects, and what of `known` was superseded only just now.
    async fn show_switched(
        &self,
        repository: &Arc<Repository>,
        generation: &Arc<Generation>,
        known: &StaticTree,
    ) {
        let before = repository.view();
        let objects = Arc::new(repository.with_superseded(&generation.objects, known));
        repository.show(View {
            generation: Arc::clone(generation),
            objects,
        });
        self.invalidate(repository, &before).await;
    }

    /// Tells the kernel what differs between `before` and what is shown now.
    async fn invalidate(&self, repository: &Arc<Repository>, before: &View) {
        let Some(invalidator) = self.invalidator.get().cloned() else {
            return;
        };
        let (repository, before) = (Arc::clone(repository), before.clone());
        let now = repository.view();
        // The old one may have been loaded since this catch-up began.
        if before.generation.loaded_work_tree().is_some()
            && let Err(error) = now.generation.work_tree(Purpose::Background).await
        {
            let (repo, error) = (&repository.name, &error as &dyn std::error::Error);
            warn!(%repo, error, "Can't tell which files changed in {repo}");
        }
        // Blocks while the kernel holds a directory's lock.
        let told = tokio::task::spawn_blocking(move || {
            invalidator.invalidate(&repository.name, &before, &now);
        });
        told.await.ok();
    }

    /// Takes packs that no snapshot has any more out of sight, after a while.
    fn hide_superseded_later(self: &Arc<Self>, repository: &Arc<Repository>) {
        let (repositories, repository) = (Arc::clone(self), Arc::clone(repository));
        let backend = self.segments.backend();
        let ending = backend.ending.clone();
        backend.tasks.spawn(async move {
            tokio::select! {
                () = sleep(SUPERSEDED_GRACE) => {}
                () = ending.cancelled() => return,
            }
            let _one_at_a_time = repository.catching_up.lock().await;
            let view = repository.view();
            repositories
                .show_switched(&repository, &view.generation, &view.objects)
                .await;
        });
    }
}

impl Repository {
    /// `objects`, and those files of `known` that left the snapshot less than [`SUPERSEDED_GRACE`] ago.
    fn with_superseded(&self, objects: &StaticTree, known: &StaticTree) -> StaticTree {
        let mut superseded = self
            .superseded
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut kept = HashMap::new();
        let mut shown = objects.clone();
        for (path, file) in known.files() {
            if !path.starts_with(b"objects/") || objects.get(path).is_some() {
                continue;
            }
            let since = superseded.get(path).copied().unwrap_or(now);
            if now.duration_since(since) < SUPERSEDED_GRACE {
                shown.add_file(path, file.content.clone(), file.mtime);
                kept.insert(path.to_vec(), since);
            }
        }
        *superseded = kept;
        shown
    }
}

/// What has to be here before the refs of `new` are shown: increments with their indexes, the
/// commit-graph. After a new layout the large packs stay where they are, and are fetched as they
/// are read.
fn new_small_packs(old: &Generation, new: &Generation) -> Vec<Arc<Segment>> {
    let known: std::collections::HashSet<_> = old
        .segments
        .iter()
        .map(|segment| segment.record().id)
        .collect();
    new.segments
        .iter()
        .filter(|segment| !known.contains(&segment.record().id))
        .filter(|segment| {
            matches!(
                segment.record().role,
                Role::CommitGraph | Role::PackIndex | Role::PackReverseIndex | Role::PackIncrement
            )
        })
        .cloned()
        .collect()
}
