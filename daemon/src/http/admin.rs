//! Operations of administrators on one repository: publish it, lay out all of its packs anew,
//! forget it.
//!
//! The policy decides whether the caller is an administrator (`authorize.rs`).

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use cachewfs_format::RepoName;
use cachewfs_format::api::ForgetAnswer;

use super::answers::refreshed;
use super::app::App;
use super::error::ApiError;
use super::route::{Call, UrlError};
use crate::repository::Snapshots;

/// Answers `POST /api/v1/repos/{repo}/{call}`.
pub(super) async fn act(
    app: Arc<App>,
    (repo, call): (RepoName, Call),
    query: Option<&str>,
) -> Result<Response, ApiError> {
    app.context.check(&repo)?;
    let published = match call {
        Call::Publish => app.registry.open(&repo)?.refresh().await?,
        Call::Relayout => app.registry.open(&repo)?.lay_out_anew().await?,
        Call::Forget => return forget(app, repo, query).await,
    };
    Ok(refreshed(&app, published))
}

async fn forget(app: Arc<App>, repo: RepoName, query: Option<&str>) -> Result<Response, ApiError> {
    let snapshots = match query {
        None | Some("" | "store=false") => Snapshots::Kept,
        Some("store=true") => Snapshots::Deleted,
        Some(_) => return Err(UrlError::NoSuchPath.into()),
    };
    let store = snapshots == Snapshots::Deleted;
    if let Some(repository) = app.registry.find(&repo) {
        repository.forget(snapshots).await?;
    } else if !forget_published(app, repo.clone(), snapshots).await? {
        return Err(ApiError::UnknownRepo { repo });
    }
    Ok(Json(ForgetAnswer { repo, store }).into_response())
}

/// Deletes the snapshots of a repository without a mirror, if that is asked for. Returns whether
/// anything was published.
async fn forget_published(
    app: Arc<App>,
    repo: RepoName,
    snapshots: Snapshots,
) -> Result<bool, ApiError> {
    let delete = async move {
        let is_published = app.store.pointer(&repo).await?.is_some();
        if snapshots == Snapshots::Deleted {
            app.store.delete(&repo).await?;
        }
        Ok(is_published)
    };
    // In a task of its own, so that it goes on if the client goes away.
    tokio::spawn(delete).await?
}
