//! Serves archives: the stable URL of the current snapshot, and the immutable URL of each snapshot.

use std::sync::Arc;

use axum::http::Method;
use axum::response::Response;
use cachewfs_format::{ArchiveKind, SnapshotId};

use super::app::App;
use super::archive_answer::{answer_current, answer_immutable, answer_stable};
use super::catalog::Revision;
use super::error::ApiError;
use super::lfs;
use super::miss;
use super::pin::Pin;
use super::request::ArchiveRequest;
use crate::repository::RepositoryError;

/// Answers with the current snapshot, or with the revision that the request is pinned to. A GET of
/// the current snapshot also starts to mirror the repository if it isn't mirrored yet.
pub(super) async fn stable(
    app: Arc<App>,
    request: ArchiveRequest,
    kind: ArchiveKind,
) -> Result<Response, ApiError> {
    let pin = Pin::of(&request.headers);
    if let Pin::Revision(toc) = pin {
        let toc = toc.ok_or(ApiError::PreconditionFailed)?;
        let pinned = app
            .catalog
            .find(&request.repo, (Revision::Toc(toc), kind))
            .await?;
        let pinned = pinned.ok_or(ApiError::PreconditionFailed)?;
        return Ok(answer_stable(&app, &request, &pinned));
    }
    if kind == ArchiveKind::Lfs {
        return lfs::stable(app, request, pin).await;
    }
    let is_get = request.method == Method::GET;
    let opened = if is_get {
        app.registry.open(&request.repo).map(Some)
    } else {
        Ok(app.registry.find(&request.repo))
    };
    // With too many new repositories, no mirror is started, but a published snapshot is served.
    let (repository, refusal) = match opened {
        Err(error @ RepositoryError::TooManyNew) => (None, Some(error)),
        opened => (opened?, None),
    };
    // The status is read before the store. If a publish ends in between, the store already has it.
    let status = repository.as_ref().map(|repository| repository.status());
    let current = app
        .catalog
        .find(&request.repo, (Revision::Current, kind))
        .await?;
    if let Some(published) = current {
        if is_get && let Some(repository) = repository {
            repository.revalidate();
        }
        return answer_current(&app, &request, (&published, pin)).await;
    }
    if let Some(refusal) = refusal {
        return Err(refusal.into());
    }
    let (Some(repository), Some(status)) = (repository, status) else {
        let repo = request.repo;
        return Err(ApiError::NoSnapshot { repo });
    };
    miss::miss(app, request, (repository, status), kind).await
}

/// Answers with the snapshot that the URL names.
pub(super) async fn immutable(
    app: Arc<App>,
    request: ArchiveRequest,
    kind: ArchiveKind,
    id: SnapshotId,
) -> Result<Response, ApiError> {
    let found = app
        .catalog
        .find(&request.repo, (Revision::Snapshot(id), kind))
        .await?;
    let Some(published) = found else {
        return Err(ApiError::NoSuchSnapshot { repo: request.repo });
    };
    Ok(answer_immutable(&request, &published).await)
}
