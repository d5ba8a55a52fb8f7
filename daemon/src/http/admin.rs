//! What operators may do to one repository: publish it, lay it out anew, forget it.
//!
//! Only from the daemon's own machine, as long as there is no authorisation. A web page that a browser
//! there shows, and a proxy there that passes others' requests on, must not do: both say who they are.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use cachewfs_format::RepoName;
use cachewfs_format::api::{ForgetAnswer, REPOS_PATH, RefreshAnswer};

use super::error::ApiError;
use super::routes::{App, parse_repo};
use crate::repository::Snapshots;

/// Headers of requests that come from elsewhere in truth.
const FOREIGN_HEADERS: &[&str] = &["origin", "forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// `POST /api/v1/repos/{host}/{path}/{action}`.
pub(super) async fn act(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if !is_local(peer, &headers) {
        return Err(ApiError::NotLocal);
    }
    let path = uri.path().strip_prefix(REPOS_PATH).unwrap_or_default();
    let path = path.trim_start_matches('/');
    let (repo, action) = path.rsplit_once('/').ok_or(ApiError::NoSuchPath)?;
    if !["publish", "relayout", "forget"].contains(&action) {
        return Err(ApiError::NoSuchPath);
    }
    let repo = parse_repo(repo)?;
    app.registry.check(&repo)?;
    let published = match action {
        "publish" => app.registry.open(&repo)?.refresh().await?,
        "relayout" => app.registry.open(&repo)?.lay_out_anew().await?,
        _ => return forget(app, repo, uri.query()).await,
    };
    let answer = RefreshAnswer {
        snapshot: published.snapshot,
        moved: published.moved,
    };
    Ok(Json(answer).into_response())
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

/// Tells whether something is, or was, published.
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

fn is_local(peer: SocketAddr, headers: &HeaderMap) -> bool {
    let is_passed_on = FOREIGN_HEADERS
        .iter()
        .any(|name| headers.contains_key(*name));
    peer.ip().to_canonical().is_loopback() && !is_passed_on
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_local() {
        let none = HeaderMap::new();
        for (peer, expected) in [
            ("127.0.0.1:5000", true),
            ("127.3.2.1:5000", true),
            ("[::1]:5000", true),
            ("[::ffff:127.0.0.1]:5000", true),
            ("10.0.0.1:5000", false),
            ("[::ffff:10.0.0.1]:5000", false),
            ("0.0.0.0:5000", false),
        ] {
            assert_eq!(is_local(peer.parse().unwrap(), &none), expected, "{peer}");
        }
    }
}
