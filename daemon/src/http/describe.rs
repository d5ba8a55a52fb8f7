//! Describes a repository: for `/api/v1/repos`, for `/api/v1/status` and for the status page.

use cachewfs_format::api::{
    FailureStatus, JobStatus, LfsStatus, MirrorState, PublishedLfs, PublishedStatus, RepoOverview,
    RepoStatus, SnapshotStatus, code,
};
use cachewfs_format::{ArchiveKind, Pointer, RepoName};

use super::error::{lfs_answer, repository_answer};
use crate::base::chain;
use crate::repository::{CurrentJob, LfsState, Repository, RunFailure, Status};

/// The audience of a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// A client, from which the policy may hide other repositories.
    Client,
    /// An operator, who sees all repositories on the same page.
    Operator,
}

/// The current pointers of a repository.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pointers<'a> {
    pub(super) snapshot: Option<&'a Pointer>,
    pub(super) lfs: Option<&'a Pointer>,
}

/// Describes the repository `name`. `repository` is `None` if this daemon has no mirror of it.
pub(super) fn describe(
    name: &RepoName,
    repository: Option<&Repository>,
    pointers: Pointers<'_>,
    audience: Audience,
) -> RepoStatus {
    let status = repository.map(Repository::status);
    let status = status.as_ref();
    let failure = status.and_then(|status| status.failure.as_ref());
    let job = status.and_then(|status| status.current_job.as_ref());
    RepoStatus {
        repo: name.clone(),
        has_mirror: repository.is_some(),
        state: status.map_or(MirrorState::Empty, |status| status.state),
        failure: failure.map(|failure| describe_failure(failure, audience)),
        updated_at: status.and_then(|status| status.updated_at),
        job: job.map(describe_job),
        next_update_at: status.map(Status::next_run_at),
        published: pointers.snapshot.map(describe_published),
        lfs: describe_lfs(repository.map(Repository::lfs), pointers.lfs),
    }
}

/// Describes a repository with its newest snapshots, and the number of all its snapshots.
pub(super) fn with_snapshots(
    status: RepoStatus,
    repository: Option<&Repository>,
    (snapshots, snapshots_total): (Vec<SnapshotStatus>, usize),
) -> RepoOverview {
    let lag = repository.and_then(Repository::lag);
    RepoOverview {
        status,
        lag_seconds: lag.map(|lag| lag.as_secs()),
        snapshots,
        snapshots_total,
    }
}

fn describe_published(pointer: &Pointer) -> PublishedStatus {
    let size = |kind| pointer.archives.get(&kind).map(|archive| archive.size);
    PublishedStatus {
        snapshot: pointer.snapshot,
        published_at: pointer.published_at,
        mirror_bytes: size(ArchiveKind::Mirror).unwrap_or(0),
        checkout_bytes: size(ArchiveKind::Checkout),
        notice: pointer.notice.clone(),
    }
}

/// Describes the LFS archive. Returns `None` if there is none, and no run or failure to report.
fn describe_lfs(state: Option<LfsState>, pointer: Option<&Pointer>) -> Option<LfsStatus> {
    let state = state.unwrap_or_default();
    let pointer = pointer.filter(|_| !state.needs_none());
    let published = pointer.and_then(|pointer| {
        let archive = pointer.archives.get(&ArchiveKind::Lfs)?;
        Some(PublishedLfs {
            snapshot: pointer.snapshot,
            published_at: pointer.published_at,
            bytes: archive.size,
        })
    });
    let failure = state.failure.as_ref().map(|failure| FailureStatus {
        code: lfs_answer(&failure.error).code.to_owned(),
        message: chain(&*failure.error),
        since: failure.since,
        tries: failure.tries,
        next_try_at: failure.next_try_at(),
    });
    let is_silent = published.is_none() && failure.is_none() && !state.is_running;
    (!is_silent).then_some(LfsStatus {
        is_running: state.is_running,
        published,
        failure,
    })
}

fn describe_job(job: &CurrentJob) -> JobStatus {
    JobStatus {
        class: job.class,
        is_running: job.is_running,
        since_seconds: job.since.elapsed().as_secs(),
        waits_for: job.waits_for.as_deref().map(str::to_owned),
    }
}

fn describe_failure(failure: &RunFailure, audience: Audience) -> FailureStatus {
    let is_hidden = audience == Audience::Client && failure.error.moved_to().is_some();
    let (code, message) = if is_hidden {
        // The code alone would tell that another repository exists, which the policy may hide.
        let text =
            "upstream has no repository of this name, or doesn't show it without credentials";
        (code::UPSTREAM_NOT_FOUND, text.to_owned())
    } else {
        (
            repository_answer(&failure.error).code,
            chain(&failure.error),
        )
    };
    FailureStatus {
        code: code.to_owned(),
        message,
        since: failure.since,
        tries: failure.tries,
        next_try_at: failure.next_try_at(),
    }
}
