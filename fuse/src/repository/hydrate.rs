//! Hydration: fetches segments in the background before a reader needs them.
//!
//! Hydration works in steps: a piece of a large segment, or a batch of small segments. Before each
//! step it waits until no reader waits for the network, so a reader competes with at most one step.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cachewfs_base::Backoff;
use cachewfs_format::{RepoName, Role, SnapshotPart};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::{Repositories, Repository};
use crate::fetch::Tail;
use crate::options::Hydrate;
use crate::segment::{ReadError, Segment, fetch_whole};
use crate::traffic::Purpose;
use crate::view::Generation;

/// How long hydration waits after a lookup or a catch-up before it begins. The reads that follow a
/// first lookup then come first.
const HYDRATION_DELAY: Duration = Duration::from_millis(300);
/// How long the mount waits before it fetches the rest of a pin again.
const PIN_BACKOFF: Backoff = Backoff {
    first: Duration::from_mins(1),
    longest: Duration::from_hours(1),
};
/// At most this many small segments are fetched in one step. Neighbours among them share requests.
const MAX_BATCH_SEGMENTS: usize = 64;

impl Repositories {
    /// Starts to load the index, because every command that looks at the work tree reads it. A long
    /// index is loaded only when a reader needs it.
    pub(super) fn start_loading_work_tree(&self, repository: &Repository) {
        let generation = repository.view().generation;
        if generation.has_long_index() {
            return;
        }
        self.tasks().spawn_until_end(async move {
            // An error is dropped: a reader of the work tree loads the index again and reports it.
            generation.work_tree(Purpose::Background).await.ok();
        });
    }

    /// Starts hydration of the current snapshot, as far as the options say.
    pub(super) fn start_hydration(self: &Arc<Self>, repository: &Arc<Repository>) {
        let part = match self.options.hydrate {
            Hydrate::Off => return,
            Hydrate::Hot => SnapshotPart::Hot,
            Hydrate::All => SnapshotPart::All,
        };
        let (repositories, repository) = (Arc::clone(self), Arc::clone(repository));
        self.tasks().spawn_until_end(async move {
            let generation = repository.view().generation;
            // Each catch-up starts a hydration of its own. This one ends when its snapshot is no
            // longer the one that is shown.
            let is_current = || Arc::ptr_eq(&repository.view().generation, &generation);
            sleep(HYDRATION_DELAY).await;
            let fetched = repositories.fetch_part(&generation, part, is_current, |_, _| ());
            let outcome = fetched.await;
            let repo = &repository.name;
            let no_room = outcome.as_ref().err();
            let no_room = no_room.filter(|error| matches!(error, ReadError::NoRoom { .. }));
            repository.note_unhydrated(no_room.map(ToString::to_string));
            match outcome {
                Ok(()) => {}
                // It is so for each snapshot of a repository that is larger than the cache.
                // `cachewfs status` says it.
                Err(error @ ReadError::NoRoom { .. }) => {
                    debug!(%repo, %error, "Not hydrating {repo}: {error}");
                }
                Err(error) => warn!(
                    %repo,
                    error = &error as &dyn std::error::Error,
                    "Hydration of {repo} stopped: readers fetch what is missing"
                ),
            }
        });
    }

    /// Fetches the bytes of a pinned snapshot that the cache lacks, in the background. Tries again
    /// with growing backoff while the snapshot is shown and pinned. Once the snapshot is complete,
    /// keeps its `tail` on disk for the next mount.
    pub(crate) fn start_fetching_pin(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        tail: Option<Tail>,
    ) {
        let (repositories, repository) = (Arc::clone(self), Arc::clone(repository));
        self.tasks().spawn_until_end(async move {
            let generation = repository.view().generation;
            let is_wanted = || {
                let is_current = Arc::ptr_eq(&repository.view().generation, &generation);
                is_current && repositories.is_pinned(&repository.name)
            };
            let mut failures = 0;
            while is_wanted() {
                let part = SnapshotPart::All;
                let fetched = repositories.fetch_part(&generation, part, is_wanted, |_, _| ());
                let repo = &repository.name;
                let Err(error) = fetched.await else {
                    if let Some(tail) = tail.filter(|_| is_wanted()) {
                        repositories.keep(repo, &generation, &tail);
                    }
                    return;
                };
                // On a full disk, each attempt fetches some bytes in vain.
                failures += 1;
                let pause = PIN_BACKOFF.doubled(failures);
                warn!(
                    %repo,
                    error = &error as &dyn std::error::Error,
                    "The cache doesn't have all of the pinned {repo}: trying again in {} s",
                    pause.as_secs()
                );
                sleep(pause).await;
            }
        });
    }

    /// Fetches a part of a snapshot, and gives way to readers.
    ///
    /// Stops early, with success, once `should_continue` returns `false`. Calls `on_progress` with
    /// the stored bytes done and their total. Fails before it fetches anything if the part is
    /// larger than the cache, and as soon as the cache doesn't keep what was fetched.
    pub(crate) async fn fetch_part(
        &self,
        generation: &Generation,
        part: SnapshotPart,
        should_continue: impl Fn() -> bool,
        on_progress: impl Fn(u64, u64),
    ) -> Result<(), ReadError> {
        let segments = segments_of(generation, part);
        self.check_room(&generation.toc.repo, &segments).await?;
        let total: u64 = segments
            .iter()
            .map(|segment| segment.record().stored_len)
            .sum();
        let mut done = 0;
        for batch in batches(&segments) {
            if !should_continue() {
                return Ok(());
            }
            for step in batch_steps(batch) {
                self.segments.readers().until_none().await;
                let started = tokio::time::Instant::now();
                let bytes = step.fetch().await?;
                done += bytes;
                on_progress(done, total);
                self.limit_rate(bytes, started.elapsed()).await;
            }
        }
        Ok(())
    }

    /// Fails if the cache can't hold `segments` of `repo` beside the pins of other repositories.
    async fn check_room(
        &self,
        repo: &RepoName,
        segments: &[Arc<Segment>],
    ) -> Result<(), ReadError> {
        let (backend, repo) = (Arc::clone(self.segments.backend()), repo.clone());
        let ids = segments.iter().map(|segment| segment.record().id).collect();
        // Looks at all files of the cache.
        let room = tokio::task::spawn_blocking(move || backend.cache.room_for(&repo, &ids));
        let room = room
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        check_room(
            segments,
            room.map_err(|error| ReadError::Cache(Arc::new(error)))?,
        )
    }

    /// Sleeps after a step of `bytes` that `took` this long, to keep to `hydrate_max_rate`.
    async fn limit_rate(&self, bytes: u64, took: Duration) {
        let Some(rate) = self.options.hydrate_max_rate.filter(|&rate| rate > 0) else {
            return;
        };
        let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
        sleep(due.saturating_sub(took)).await;
    }
}

/// The unit of work between two checks for waiting readers.
enum Step<'a> {
    /// Some small segments.
    Whole(&'a [Arc<Segment>]),
    /// A half-open range of the content of a large segment.
    Piece(&'a Arc<Segment>, std::ops::Range<u64>),
}

/// At most this many bytes of content of a large segment are fetched in one step. A segment with
/// more stored bytes counts as large.
const PIECE_LEN: u64 = 4 << 20;

impl Step<'_> {
    /// Fetches the missing chunks of the step. Returns the stored bytes of the step, estimated for
    /// a piece. Fails if the cache has not kept them: readers can do without the cache, but a
    /// person who asked for the step can't.
    async fn fetch(&self) -> Result<u64, ReadError> {
        match self {
            Self::Whole(segments) => {
                fetch_whole(segments, Purpose::Background).await?;
                for segment in *segments {
                    segment.check_kept(0..segment.len())?;
                }
                Ok(segments
                    .iter()
                    .map(|segment| segment.record().stored_len)
                    .sum())
            }
            Self::Piece(segment, range) => {
                segment.fetch(range.clone(), Purpose::Background).await?;
                segment.check_kept(range.clone())?;
                // A range of content has no exact stored length, so this takes its share.
                let stored = u128::from(segment.record().stored_len);
                let share =
                    stored * u128::from(range.end - range.start) / u128::from(segment.len().max(1));
                Ok(u64::try_from(share).unwrap_or(0))
            }
        }
    }
}

/// Splits segments into batches: each large segment alone, small neighbours together.
fn batches(segments: &[Arc<Segment>]) -> impl Iterator<Item = &[Arc<Segment>]> {
    let is_small = |segment: &Arc<Segment>| segment.record().stored_len <= PIECE_LEN;
    segments
        .chunk_by(move |one, other| is_small(one) && is_small(other))
        .flat_map(|run| run.chunks(MAX_BATCH_SEGMENTS))
}

/// Returns the steps that fetch a batch.
fn batch_steps(batch: &[Arc<Segment>]) -> Vec<Step<'_>> {
    match batch {
        [large] if large.record().stored_len > PIECE_LEN => (0..large.len().div_ceil(PIECE_LEN))
            .map(|piece| {
                let start = piece * PIECE_LEN;
                Step::Piece(large, start..large.len().min(start + PIECE_LEN))
            })
            .collect(),
        small => vec![Step::Whole(small)],
    }
}

/// Returns how many stored bytes of a part are in the cache, and how many it has.
pub(crate) fn kept_of(generation: &Generation, part: SnapshotPart) -> (u64, u64) {
    let segments = segments_of(generation, part);
    let kept = segments.iter().map(|segment| segment.cached_bytes()).sum();
    let total = segments
        .iter()
        .map(|segment| segment.record().stored_len)
        .sum();
    (kept, total)
}

/// Fails if the segments would take more than `room_bytes` on disk. Counts decompressed lengths,
/// because the cache stores content: a few stored bytes can decompress to gigabytes.
pub(super) fn check_room(segments: &[Arc<Segment>], room_bytes: u64) -> Result<(), ReadError> {
    // A segment that occurs several times in a snapshot is on disk once.
    let mut counted = HashSet::new();
    let needed_bytes = segments
        .iter()
        .filter(|segment| counted.insert(segment.record().id))
        .map(|segment| {
            segment
                .len()
                .saturating_add(segment.record().table_len.into())
        })
        .fold(0, u64::saturating_add);
    if needed_bytes > room_bytes {
        return Err(ReadError::NoRoom {
            needed_bytes,
            room_bytes,
        });
    }
    Ok(())
}

/// Returns the segments of a part, in the order of the archive. Segments that the mount never
/// reads, such as tar headers, belong to no part.
pub(crate) fn segments_of(generation: &Generation, part: SnapshotPart) -> Vec<Arc<Segment>> {
    let is_wanted = |role: Role| role.part().is_some_and(|smallest| smallest <= part);
    generation
        .segments
        .iter()
        .filter(|segment| is_wanted(segment.record().role))
        .cloned()
        .collect()
}
