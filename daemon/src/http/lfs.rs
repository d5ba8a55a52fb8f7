//! `lfs-snapshot.tar.zst`: the stable URL of the archive with Git LFS objects. It is made after the
//! other archives, and only if a client asks for it.

use std::sync::Arc;

use axum::http::{Method, header};
use axum::response::Response;
use cachewfs_format::ArchiveKind;
use tokio::time::timeout;

use super::app::App;
use super::archive_answer::answer_current;
use super::catalog::{PublishedArchive, Revision};
use super::error::ApiError;
use super::miss::{MAX_WAIT, wants_stream};
use super::pin::Pin;
use super::request::ArchiveRequest;
use crate::config::LfsMode;
use crate::repository::{LfsState, Repository, RepositoryError};

/// Answers with the current LFS archive.
///
/// If there is none, a GET starts to make it and waits up to [`MAX_WAIT`]. Then the client gets 503
/// and retries: an archive whose objects are still being fetched is not streamed.
pub(super) async fn stable(
    app: Arc<App>,
    request: ArchiveRequest,
    pin: Pin,
) -> Result<Response, ApiError> {
    let repo = request.repo.clone();
    let is_get = request.method == Method::GET;
    let repository = if is_get {
        Some(app.registry.open(&repo)?)
    } else {
        app.registry.find(&repo)
    };
    let Some(repository) = repository else {
        let published = current(&app, &request).await?;
        let published = published.ok_or(ApiError::NoSnapshot { repo })?;
        return answer_current(&app, &request, (&published, pin)).await;
    };
    // The state is read before the store. Otherwise a run that ends in between would be missed, and
    // the wait below would last until the next run.
    let state = repository.lfs();
    if let Some(published) = current(&app, &request).await? {
        if state.needs_none() {
            return Err(ApiError::NoLfs { repo });
        }
        if is_get {
            repository.revalidate();
        }
        return answer_current(&app, &request, (&published, pin)).await;
    }
    if app.context.config.now().publish.lfs == LfsMode::Off {
        return Err(ApiError::LfsOff);
    }
    if is_get {
        app.lfs.request(&repository);
    }
    why_not(&request, &state, &repository)?;
    if !is_get {
        return Err(ApiError::NoSnapshot { repo });
    }
    if request.headers.contains_key(header::IF_MATCH) {
        return Err(ApiError::PreconditionFailed);
    }
    if !wants_stream(&request) {
        return Err(ApiError::LfsNotReady { repo });
    }
    wait(&app, (&repository, state.runs)).await?;
    if let Some(published) = current(&app, &request).await? {
        return answer_current(&app, &request, (&published, pin)).await;
    }
    why_not(&request, &repository.lfs(), &repository)?;
    Err(ApiError::LfsNotReady { repo })
}

async fn current(
    app: &Arc<App>,
    request: &ArchiveRequest,
) -> Result<Option<PublishedArchive>, ApiError> {
    app.catalog
        .find(&request.repo, (Revision::Current, ArchiveKind::Lfs))
        .await
}

/// Returns an error if the reason why there is no LFS archive is known.
fn why_not(
    request: &ArchiveRequest,
    state: &LfsState,
    repository: &Repository,
) -> Result<(), ApiError> {
    if state.needs_none() {
        let repo = request.repo.clone();
        return Err(ApiError::NoLfs { repo });
    }
    if let Some(failure) = &state.failure
        && !(state.is_running || request.method == Method::GET && failure.is_due())
    {
        return Err(ApiError::Lfs(Arc::clone(&failure.error)));
    }
    let status = repository.status();
    match status.failure.map(|failure| failure.error) {
        Some(error @ (RepositoryError::Mirror(_) | RepositoryError::Publish(_)))
            if status.first_snapshot.is_none() =>
        {
            Err(error.into())
        }
        _ => Ok(()),
    }
}

/// Waits up to [`MAX_WAIT`] for the end of a run, or for a failure of the snapshot that it needs.
async fn wait(app: &App, (repository, runs): (&Repository, u64)) -> Result<(), ApiError> {
    let has_failed = repository
        .status_when(|status| status.failure.is_some() && status.first_snapshot.is_none());
    let outcome = async {
        tokio::select! {
            () = repository.lfs_after(runs) => Ok(()),
            _ = has_failed => Ok(()),
            () = app.context.stop.cancelled() => Err(RepositoryError::Stopping.into()),
        }
    };
    timeout(MAX_WAIT, outcome).await.unwrap_or(Ok(()))
}
