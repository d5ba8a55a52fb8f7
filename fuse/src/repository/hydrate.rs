//! Fetching what is likely to be read, before it is.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::Role;
use tokio::time::sleep;
use tracing::debug;

use super::{Repositories, Repository};
use crate::control::protocol::SnapshotPart;
use crate::options::Hydrate;
use crate::segment::{ReadError, Segment, fetch_whole};
use crate::traffic::Purpose;
use crate::view::Generation;

/// How long hydration waits after a first lookup: the reads that follow it come first.
const HEAD_START: Duration = Duration::from_millis(300);
/// How many segments are looked at together: small neighbours share a request.
const BATCH: usize = 64;

impl Repositories {
    /// Starts to fetch the index: every command that looks at the work tree reads it. A long one waits
    /// until somebody does.
    pub(super) fn start_loading_work_tree(&self, repository: &Repository) {
        let generation = repository.view().generation;
        if generation.has_long_index() {
            return;
        }
        let backend = self.segments.backend();
        let ending = backend.ending.clone();
        backend.tasks.spawn(async move {
            let load = generation.work_tree(Purpose::Background);
            // Whoever reads it tries again.
            drop(ending.run_until_cancelled(load).await);
        });
    }

    /// Fetches in the background what the options say.
    pub(super) fn start_hydration(self: &Arc<Self>, repository: &Arc<Repository>) {
        let part = match self.options.hydrate {
            Hydrate::Off => return,
            Hydrate::Hot => SnapshotPart::Hot,
            Hydrate::All => SnapshotPart::All,
        };
        let (repositories, repository) = (Arc::clone(self), Arc::clone(repository));
        let backend = Arc::clone(self.segments.backend());
        let ending = backend.ending.clone();
        backend.tasks.spawn(async move {
            let generation = repository.view().generation;
            let is_current = || Arc::ptr_eq(&repository.view().generation, &generation);
            let hydrate = async {
                sleep(HEAD_START).await;
                repositories
                    .fetch_part(&generation, part, is_current, |_, _| ())
                    .await
            };
            let outcome = tokio::select! {
                outcome = hydrate => outcome,
                () = ending.cancelled() => return,
            };
            if let Err(error) = outcome {
                let repo = &repository.name;
                debug!(%repo, error = &error as &dyn std::error::Error, "hydration stopped");
            }
        });
    }

    /// Fetches a part of a snapshot while `goes_on`, giving way to readers; tells `on_progress`
    /// the bytes done and to do, as stored. Fetches nothing if the cache could not hold all of it.
    pub(crate) async fn fetch_part(
        &self,
        generation: &Generation,
        part: SnapshotPart,
        goes_on: impl Fn() -> bool,
        on_progress: impl Fn(u64, u64),
    ) -> Result<(), ReadError> {
        let segments = segments_of(generation, part);
        check_room(&segments, self.segments.backend().cache.max_bytes())?;
        let total: u64 = segments
            .iter()
            .map(|segment| segment.record().stored_len)
            .sum();
        let mut done = 0;
        for batch in batches(&segments) {
            if !goes_on() {
                return Ok(());
            }
            for step in batch_steps(batch) {
                self.segments.backend().readers_are_served().await;
                let started = tokio::time::Instant::now();
                let bytes = step.fetch().await?;
                done += bytes;
                on_progress(done, total);
                self.keep_to_rate(bytes, started.elapsed()).await;
            }
        }
        Ok(())
    }

    /// Waits so that hydration takes no more than its rate.
    async fn keep_to_rate(&self, bytes: u64, took: Duration) {
        let Some(rate) = self.options.hydrate_max_rate.filter(|&rate| rate > 0) else {
            return;
        };
        let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
        sleep(due.saturating_sub(took)).await;
    }
}

/// Something to fetch between two looks at the readers that wait.
enum Step<'a> {
    /// Small segments, all at once.
    Whole(&'a [Arc<Segment>]),
    /// A piece of a large segment, a half-open range of its content.
    Piece(&'a Arc<Segment>, std::ops::Range<u64>),
}

/// What is fetched of a large segment between two looks at the readers that wait, in bytes.
const PIECE_LEN: u64 = 4 << 20;

impl Step<'_> {
    /// Fetches it; gives the bytes that are in the cache now, roughly as stored.
    async fn fetch(&self) -> Result<u64, ReadError> {
        match self {
            Self::Whole(segments) => {
                fetch_whole(segments, Purpose::Background).await?;
                Ok(segments
                    .iter()
                    .map(|segment| segment.record().stored_len)
                    .sum())
            }
            Self::Piece(segment, range) => {
                segment.fetch(range.clone(), Purpose::Background).await?;
                let stored = u128::from(segment.record().stored_len);
                let share =
                    stored * u128::from(range.end - range.start) / u128::from(segment.len().max(1));
                Ok(u64::try_from(share).unwrap_or(0))
            }
        }
    }
}

fn batches(segments: &[Arc<Segment>]) -> impl Iterator<Item = &[Arc<Segment>]> {
    let is_small = |segment: &Arc<Segment>| segment.record().stored_len <= PIECE_LEN;
    segments
        .chunk_by(move |one, other| is_small(one) && is_small(other))
        .flat_map(|run| run.chunks(BATCH))
}

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

/// Refuses segments that would take more than `room_bytes` on disk. Only as stored can they be small.
pub(super) fn check_room(segments: &[Arc<Segment>], room_bytes: u64) -> Result<(), ReadError> {
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

/// The segments of a part, in the order of the archive; what belongs to no part of its own, such
/// as tar headers, is left out.
pub(crate) fn segments_of(generation: &Generation, part: SnapshotPart) -> Vec<Arc<Segment>> {
    let is_wanted = |role: Role| match role {
        Role::Refs
        | Role::PackedRefs
        | Role::CommitGraph
        | Role::PackIndex
        | Role::PackReverseIndex
        | Role::PackTip
        | Role::PackIncrement
        | Role::PackRecent
        | Role::IndexHeader
        | Role::IndexPart
        | Role::IndexTrailer => true,
        Role::PackCommits => part != SnapshotPart::Hot,
        Role::PackTrees => matches!(part, SnapshotPart::Trees | SnapshotPart::All),
        Role::PackHistory | Role::WorkTree | Role::LargeFile => part == SnapshotPart::All,
        Role::Header | Role::LfsObject | Role::End => false,
    };
    generation
        .segments
        .iter()
        .filter(|segment| is_wanted(segment.record().role))
        .cloned()
        .collect()
}
