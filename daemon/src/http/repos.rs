//! The repositories that the daemon knows, as JSON.

use std::sync::Arc;

use axum::Json;
use cachewfs_format::api::{
    FailureStatus, JobStatus, LfsStatus, PublishedLfs, PublishedStatus, RefsStatus, RepoDetail,
    RepoList, RepoStatus, SnapshotStatus, code,
};
use cachewfs_format::{ArchiveKind, Pointer, RepoName};

use super::app::App;
use super::authorize::may_read;
use super::error::{ApiError, lfs_status, repository_code};
use super::status::SnapshotReport;
use crate::auth::Caller;
use crate::base::chain;
use crate::repository::{CurrentJob, MirrorState, Repository, RunFailure, Status};
use crate::store::StoreError;

/// At most this many refs of a repository are listed.
const MAX_REFS: usize = 1000;

/// Answers `GET /api/v1/repos`.
pub(super) async fn list(app: Arc<App>, caller: Caller) -> Result<Json<RepoList>, ApiError> {
    let hosts = app.context.config.now().upstreams.keys().cloned().collect();
    let read = move || {
        let mut repositories = app.repositories()?;
        repositories.retain(|repo, _| may_read(&app, &caller, repo));
        let (names, mirrored): (Vec<_>, Vec<_>) = repositories.into_iter().unzip();
        let pointers = app.store.recent_pointers(&names);
        let lfs = app.store_of(ArchiveKind::Lfs).recent_pointers(&names);
        let mut described = Vec::new();
        for (((repo, mirrored), pointer), lfs) in names.iter().zip(mirrored).zip(pointers).zip(lfs)
        {
            let pointers = (unless_away(pointer)?, unless_away(lfs)?);
            // A repository in the store without a pointer is not published yet.
            if mirrored.is_some() || pointers.0.is_some() {
                let status = mirrored.map(|repository| repository.status());
                described.push(describe(&app, repo, status.as_ref(), pointers));
            }
        }
        Ok::<_, ApiError>(described)
    };
    let repos = tokio::task::spawn_blocking(read).await??;
    Ok(Json(RepoList { repos, hosts }))
}

/// Turns an error of the bucket into `None`. If the bucket is unreachable or refuses the daemon, a
/// list still shows everything that is known locally.
fn unless_away(
    pointer: Result<Option<Pointer>, StoreError>,
) -> Result<Option<Pointer>, StoreError> {
    match pointer {
        Err(StoreError::Tier(error)) if error.is_bucket_failure() => Ok(None),
        pointer => pointer,
    }
}

/// Answers `GET /api/v1/repos/{repo}`.
pub(super) async fn one(app: Arc<App>, repo: RepoName) -> Result<Json<RepoDetail>, ApiError> {
    app.context.check(&repo)?;
    let repository = app.registry.find(&repo);
    let status = repository.as_ref().map(|repository| repository.status());
    let refs = match &repository {
        Some(repository) => refs(&app, repository).await,
        None => None,
    };
    let read = move || -> Result<RepoDetail, ApiError> {
        let lfs = unless_away(app.store_of(ArchiveKind::Lfs).pointer(&repo))?;
        let pointers = (app.store.pointer(&repo)?, lfs);
        let status = describe(&app, &repo, status.as_ref(), pointers);
        // If the snapshots can't be read, the rest of the answer, such as the reason, is still
        // useful.
        let newest = app.status.newest_snapshots(&app.store, &repo);
        let (snapshots, snapshots_total) = newest.unwrap_or_default();
        Ok(RepoDetail {
            status,
            refs,
            snapshots: snapshots.into_iter().map(Into::into).collect(),
            snapshots_total,
        })
    };
    let detail = tokio::task::spawn_blocking(read).await??;
    if repository.is_some() || detail.status.published.is_some() {
        Ok(Json(detail))
    } else {
        let repo = detail.status.repo;
        Err(ApiError::UnknownRepo { repo })
    }
}

/// Returns the refs of a mirror, or `None` if there is no mirror or it can't be read. The task of
/// the repository reports the reason.
async fn refs(app: &App, repository: &Arc<Repository>) -> Option<RefsStatus> {
    let status = repository.status();
    if status.state != MirrorState::Ready {
        return None;
    }
    let (named, is_cut) = app.reader.refs(repository, MAX_REFS).await.ok()?;
    Some(RefsStatus {
        head: status.head,
        named,
        is_cut,
    })
}

impl From<SnapshotReport> for SnapshotStatus {
    fn from(report: SnapshotReport) -> Self {
        Self {
            snapshot: report.id,
            created_at: report.created_at,
            bytes: report.size_bytes,
            shared_bytes: report.shared_bytes,
        }
    }
}

/// Describes a repository. The two pointers are those of its snapshot and of its LFS archive.
fn describe(
    app: &App,
    repo: &RepoName,
    status: Option<&Status>,
    (pointer, lfs): (Option<Pointer>, Option<Pointer>),
) -> RepoStatus {
    let published = pointer.map(|pointer| {
        let size = |kind| pointer.archives.get(&kind).map(|archive| archive.size);
        PublishedStatus {
            snapshot: pointer.snapshot,
            published_at: pointer.published_at,
            mirror_bytes: size(ArchiveKind::Mirror).unwrap_or(0),
            checkout_bytes: size(ArchiveKind::Checkout),
            notice: pointer.notice.clone(),
        }
    });
    let failure = status.and_then(|status| status.failure.as_ref());
    let failure = failure.map(describe_failure);
    RepoStatus {
        repo: repo.clone(),
        state: status
            .map_or(MirrorState::Empty, |status| status.state)
            .as_str()
            .to_owned(),
        error: failure.as_ref().map(|failure| failure.message.clone()),
        failure,
        updated_at: status.and_then(|status| status.updated_at),
        job: status
            .and_then(|status| status.current_job.as_ref())
            .map(describe_job),
        next_update_at: status.map(Status::next_run_at),
        published,
        lfs: describe_lfs(app, repo, lfs),
    }
}

/// Describes the LFS archive. Returns `None` if there is none, and no run or failure to report.
fn describe_lfs(app: &App, repo: &RepoName, pointer: Option<Pointer>) -> Option<LfsStatus> {
    let state = app.registry.find(repo).map(|repository| repository.lfs());
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
        code: lfs_status(&failure.error).1.to_owned(),
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

fn describe_job(doing: &CurrentJob) -> JobStatus {
    JobStatus {
        class: doing.class.as_str().to_owned(),
        is_running: doing.is_running,
        since_seconds: doing.since.elapsed().as_secs(),
        waits_for: doing.waits_for.as_deref().map(str::to_owned),
    }
}

fn describe_failure(failure: &RunFailure) -> FailureStatus {
    // The error would name the other repository, which the policy may hide from this caller.
    let (code, message) = if failure.error.moved_to().is_some() {
        let text =
            "upstream has no repository of this name, or doesn't show it without credentials";
        (code::UPSTREAM_NOT_FOUND, text.to_owned())
    } else {
        (repository_code(&failure.error), chain(&failure.error))
    };
    FailureStatus {
        code: code.to_owned(),
        message,
        since: failure.since,
        tries: failure.tries,
        next_try_at: failure.next_try_at(),
    }
}
