//! Reports on repositories for `cachewfs status`, and the pins of repositories.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cachewfs_format::{PackKind, RepoName, Role, SnapshotPart};
use tracing::warn;

use super::hydrate::{check_room, segments_of};
use super::{Repositories, Repository};
use crate::fetch::Tail;
use crate::report::{PartReport, RepoReport};
use crate::segment::ReadError;
use crate::view::Generation;

/// Returns the name under which a report lists segments of this role, or `None` for roles that the
/// mount never reads.
const fn part_of(role: Role) -> Option<&'static str> {
    match role {
        Role::Refs | Role::PackedRefs => Some("refs"),
        Role::CommitGraph | Role::PackIndex | Role::PackReverseIndex => Some("pack indexes"),
        Role::Pack(PackKind::Tip) => Some("tip"),
        Role::Pack(PackKind::Increment) => Some("increments"),
        Role::IndexHeader | Role::IndexPart | Role::IndexTrailer => Some("index"),
        Role::WorkTree | Role::LargeFile => Some("work tree"),
        Role::Pack(PackKind::Recent) => Some("recent"),
        Role::Pack(PackKind::Commits) => Some("commits"),
        Role::Pack(PackKind::Trees) => Some("trees"),
        Role::Pack(PackKind::History) => Some("history"),
        Role::Header | Role::LfsObject | Role::End => None,
    }
}

/// Returns the cached and total stored bytes of each part of a snapshot.
fn parts(generation: &Generation) -> Vec<PartReport> {
    let mut parts: Vec<PartReport> = Vec::new();
    for segment in &generation.segments {
        let Some(name) = part_of(segment.record().role) else {
            continue;
        };
        let (cached, total) = (segment.cached_bytes(), segment.record().stored_len);
        match parts.iter_mut().find(|part| part.part == name) {
            Some(part) => {
                part.cached_bytes += cached;
                part.total_bytes += total;
            }
            None => parts.push(PartReport {
                part: name.to_owned(),
                cached_bytes: cached,
                total_bytes: total,
            }),
        }
    }
    parts
}

impl Repositories {
    /// Returns the reports of all repositories that were resolved, failed to resolve, or are
    /// pinned. The caller fills in their clones.
    pub(crate) fn report(&self) -> Vec<RepoReport> {
        let pinned = self.cache().pinned_repos().unwrap_or_default();
        let resolved = self.resolved();
        let mut reports: Vec<RepoReport> = resolved
            .iter()
            .map(|repository| self.report_of(repository, &pinned))
            .collect();
        for (name, error) in self.failed() {
            let mut report = self.empty_report(name, &pinned);
            report.last_error = Some(error);
            reports.push(report);
        }
        for name in &pinned {
            if !reports.iter().any(|report| report.repo == *name) {
                reports.push(self.empty_report(name.clone(), &pinned));
            }
        }
        reports.sort_by(|one, other| one.repo.cmp(&other.repo));
        reports
    }

    fn report_of(&self, repository: &Repository, pinned: &[RepoName]) -> RepoReport {
        let generation = repository.view().generation;
        let checked_at = repository.checked_at.load(Ordering::Relaxed);
        RepoReport {
            snapshot: Some(generation.snapshot),
            archive_bytes: generation.archive_len,
            parts: parts(&generation),
            catch_ups: repository.catch_ups.load(Ordering::Relaxed),
            checked_at: (checked_at > 0).then_some(checked_at),
            last_error: repository.last_error(),
            unhydrated: repository.unhydrated(),
            notice: generation.notice.clone(),
            ..self.empty_report(repository.name.clone(), pinned)
        }
    }

    fn empty_report(&self, repo: RepoName, pinned: &[RepoName]) -> RepoReport {
        RepoReport {
            snapshot: None,
            is_pinned: pinned.contains(&repo),
            archive_bytes: 0,
            parts: Vec::new(),
            catch_ups: 0,
            checked_at: None,
            last_error: None,
            unhydrated: None,
            failed_reads: self.failed_reads.of(&repo),
            notice: None,
            clones: Vec::new(),
            traffic: self.traffic().report_of(&repo),
            repo,
        }
    }

    /// Pins the current snapshot of `repository`. Fails if the cache has no room for it beside the
    /// pins of other repositories.
    pub(crate) fn pin(&self, repository: &Repository) -> Result<(), ReadError> {
        let cache = self.cache();
        let failed = |error| ReadError::Cache(Arc::new(error));
        let segments = segments_of(&repository.view().generation, SnapshotPart::All);
        let ids: HashSet<_> = segments.iter().map(|segment| segment.record().id).collect();
        // A pin is never evicted. A pin larger than the cache would exceed its limit for good.
        let room = cache.room_for(&repository.name, &ids);
        check_room(&segments, room.map_err(failed)?)?;
        let ids: Vec<_> = ids.into_iter().collect();
        cache.pin(&repository.name, &ids).map_err(failed)
    }

    /// Returns whether `repo` is pinned, also by another mount on the same cache.
    pub(super) fn is_pinned(&self, repo: &RepoName) -> bool {
        let pinned = self.cache().pinned_repos();
        pinned.unwrap_or_default().contains(repo)
    }

    /// Keeps the snapshot of `repository`, which is new, on disk for the next mount.
    ///
    /// If the repository is pinned, first pins the snapshot in place of the old one and fetches it.
    /// Without a daemon, the next mount then shows a snapshot that is there as a whole.
    pub(super) fn keep_new(self: &Arc<Self>, repository: &Arc<Repository>, tail: Tail) {
        let name = &repository.name;
        if !self.is_pinned(name) {
            let generation = repository.view().generation;
            return self.keep(name, &generation, &tail);
        }
        if let Err(error) = self.pin(repository) {
            warn!(
                repo = %name,
                error = &error as &dyn std::error::Error,
                "Can't pin the new snapshot of {name}: the pin stays on the old one"
            );
            return;
        }
        self.start_fetching_pin(repository, Some(tail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, REPO};

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_cache_cannot_hold_is_neither_pinned_nor_fetched() {
        // The file compresses well: few stored bytes, many bytes on disk.
        let zeros = vec![0; 1 << 20];
        let files = [("zeros", 0o100_644, &zeros[..])];
        let archive = testing::archive("main", b"pack", &files);
        assert!(archive.bytes.len() < 100_000);
        for (max_bytes, fits) in [(1_000_000, false), (2_000_000, true)] {
            let archive = testing::archive("main", b"pack", &files);
            let bench = testing::bench_with_cache(archive, max_bytes);
            let repositories = &bench.repositories;
            let name = RepoName::parse(REPO).unwrap();
            let repository = repositories.resolve(&name).await.unwrap();
            let cache = repositories.cache();
            bench.source.take_requests();

            let pinned = repositories.pin(&repository);
            let generation = repository.view().generation;
            let fetched = repositories
                .fetch_part(&generation, SnapshotPart::All, || true, |_, _| ())
                .await;

            assert_eq!(cache.pinned_repos().unwrap().len(), usize::from(fits));
            if fits {
                assert!(pinned.is_ok() && fetched.is_ok(), "{pinned:?} {fetched:?}");
            } else {
                assert!(
                    matches!(pinned, Err(ReadError::NoRoom { .. })),
                    "{pinned:?}"
                );
                assert!(
                    matches!(fetched, Err(ReadError::NoRoom { .. })),
                    "{fetched:?}"
                );
                assert_eq!(cache.used_bytes() / max_bytes, 0);
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pin_leaves_room_for_other_pins() {
        let zeros = vec![0; 1 << 20];
        let files = [("zeros", 0o100_644, &zeros[..])];
        let bench = testing::bench_with_cache(testing::archive("main", b"pack", &files), 3 << 20);
        let name = RepoName::parse(REPO).unwrap();
        let repository = bench.repositories.resolve(&name).await.unwrap();
        let generation = repository.view().generation;
        let cache = bench.repositories.cache();
        bench
            .repositories
            .fetch_part(&generation, SnapshotPart::All, || true, |_, _| ())
            .await
            .unwrap();
        let ids: Vec<_> = segments_of(&generation, SnapshotPart::All)
            .iter()
            .map(|segment| segment.record().id)
            .collect();
        let other = RepoName::parse("host/other").unwrap();
        cache.pin(&other, &ids).unwrap();

        let room = |repo, ids: &[_]| {
            let ids = ids.iter().copied().collect();
            cache.room_for(repo, &ids).unwrap()
        };

        assert!(room(&name, &[]) <= 2 << 20);
        // Segments that both pins contain are on disk once, so they need no further room.
        assert_eq!(room(&name, &ids), 3 << 20);
        assert_eq!(room(&other, &[]), 3 << 20);
    }
}
