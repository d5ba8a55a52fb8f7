//! The repositories that the daemon knows, as JSON.

use std::sync::Arc;

use axum::Json;
use cachewfs_format::api::{MirrorState, RefsStatus, RepoDetail, RepoList};
use cachewfs_format::{ArchiveKind, Pointer, RepoName};

use super::app::App;
use super::authorize::may_read;
use super::describe::{Audience, Pointers, describe, with_snapshots};
use super::error::ApiError;
use crate::auth::Caller;
use crate::repository::Repository;
use crate::store::StoreError;

/// At most this many refs of a repository are listed.
const MAX_REFS: usize = 1000;

/// Answers `GET /api/v1/repos`.
pub(super) async fn list(app: Arc<App>, caller: Caller) -> Result<Json<RepoList>, ApiError> {
    let hosts = app.context.config.now().upstreams.keys().cloned().collect();
    let mut repositories = app.repositories().await?;
    repositories.retain(|repo, _| may_read(&app, &caller, repo));
    let (names, mirrored): (Vec<_>, Vec<_>) = repositories.into_iter().unzip();
    let pointers = app.store.recent_pointers(&names).await;
    let lfs = app.store_of(ArchiveKind::Lfs);
    let lfs = lfs.recent_pointers(&names).await;
    let mut repos = Vec::new();
    for (((repo, mirrored), pointer), lfs) in names.iter().zip(mirrored).zip(pointers).zip(lfs) {
        let (pointer, lfs) = (unless_away(pointer)?, unless_away(lfs)?);
        // A repository in the store without a pointer is not published yet.
        if mirrored.is_some() || pointer.is_some() {
            let pointers = Pointers {
                snapshot: pointer.as_ref(),
                lfs: lfs.as_ref(),
            };
            let mirrored = mirrored.as_deref();
            repos.push(describe(repo, mirrored, pointers, Audience::Client));
        }
    }
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
    let refs = match &repository {
        Some(repository) => refs(&app, repository).await,
        None => None,
    };
    let lfs = unless_away(app.store_of(ArchiveKind::Lfs).pointer(&repo).await)?;
    let pointer = app.store.pointer(&repo).await?;
    let pointers = Pointers {
        snapshot: pointer.as_ref(),
        lfs: lfs.as_ref(),
    };
    let status = describe(&repo, repository.as_deref(), pointers, Audience::Client);
    if !status.has_mirror && status.published.is_none() {
        return Err(ApiError::UnknownRepo { repo });
    }
    // If the snapshots can't be read, the rest of the answer, such as the reason, is still
    // useful.
    let newest = app.status.newest_snapshots(&app.store, &repo).await;
    let newest = newest.unwrap_or_default();
    let overview = with_snapshots(status, repository.as_deref(), newest);
    Ok(Json(RepoDetail { overview, refs }))
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
