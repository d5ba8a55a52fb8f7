//! Operations of administrators on one repository: publish it, lay out all of its packs anew,
//! forget it.
//!
//! The policy decides whether the caller is an administrator (`authorize.rs`).

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use cachewfs_format::RepoName;
use cachewfs_format::api::{ForgetAnswer, REPOS_PATH};

use super::error::ApiError;
use super::routes::{App, parse_repo, refreshed};
use crate::config::Config;
use crate::repository::Snapshots;

/// Answers `POST /api/v1/repos/{host}/{path}/{action}`.
pub(super) async fn act(
    State(app): State<Arc<App>>,
    Extension(names): Extension<Arc<Config>>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let path = uri.path().strip_prefix(REPOS_PATH).unwrap_or_default();
    let path = path.trim_start_matches('/');
    let (repo, action) = path.rsplit_once('/').ok_or(ApiError::NoSuchPath)?;
    if !["publish", "relayout", "forget"].contains(&action) {
        return Err(ApiError::NoSuchPath);
    }
    let repo = parse_repo(repo, &names)?;
    app.registry.check(&repo)?;
    let published = match action {
        "publish" => app.registry.open(&repo)?.refresh().await?,
        "relayout" => app.registry.open(&repo)?.lay_out_anew().await?,
        _ => return forget(app, repo, uri.query()).await,
    };
    Ok(refreshed(&app, published))
}

async fn forget(app: Arc<App>, repo: RepoName, query: Option<&str>) -> Result<Response, ApiError> {
    let snapshots = match query {
        None | Some("" | "store=false") => Snapshots::Kept,
        Some("store=true") => Snapshots::Deleted,
        Some(_) => return Err(ApiError::NoSuchPath),
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
    let delete = move || {
        let is_published = app.store.pointer(&repo)?.is_some();
        if snapshots == Snapshots::Deleted {
            app.store.delete(&repo)?;
        }
        Ok(is_published)
    };
    tokio::task::spawn_blocking(delete).await?
}
