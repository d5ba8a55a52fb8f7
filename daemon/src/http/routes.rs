//! The router: passes each request on to the handler of its [`Route`].

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use cachewfs_format::RepoName;

use super::answers::{not_allowed, refreshed};
use super::app::App;
use super::authorize::authorize;
use super::catalog::Catalog;
use super::error::{ApiError, answer_git_in_text};
use super::git_protocol::{self, GitServer};
use super::request::{ArchiveRequest, client};
use super::route::{ParsedUrl, RepoResource, Route, UrlError, is_read};
use super::{admin, bundle, ensure_refs, health, metrics, observe, repos, snapshots, status};
use crate::auth::Access;
use crate::readiness::Lifecycle;
use crate::repository::{Bundles, Context, LfsRuns, MirrorReader, Registry};
use crate::store::Store;

/// Builds the router. It has no table of paths: `observe` parses each URL into a [`Route`].
pub(crate) fn router(
    (context, registry, lfs): (Arc<Context>, Arc<Registry>, Arc<LfsRuns>),
    store: Store,
    (access, lifecycle): (Access, Arc<Lifecycle>),
) -> Router {
    let reader = MirrorReader::new(Arc::clone(&context));
    let git = GitServer::new(Arc::clone(&context), Arc::clone(&registry));
    let app = Arc::new(App {
        git: Arc::new(git),
        bundles: Bundles::new(Arc::clone(&context), Arc::clone(&reader)),
        reader,
        lfs,
        context,
        body_budget: ensure_refs::body_budget(),
        registry,
        catalog: Arc::new(Catalog::new(store.clone())),
        store,
        access,
        began: Instant::now(),
        lifecycle,
        status: status::Reports::default(),
    });
    Router::new()
        .fallback(answer)
        // The last layer is the outermost: refused requests are observed too.
        .layer(from_fn_with_state(Arc::clone(&app), authorize))
        .layer(from_fn(answer_git_in_text))
        .layer(from_fn_with_state(Arc::clone(&app), observe::observe))
        .with_state(app)
}

/// Answers a request that the policy allows.
async fn answer(
    State(app): State<Arc<App>>,
    Extension(url): Extension<Arc<ParsedUrl>>,
    request: Request,
) -> Result<Response, ApiError> {
    let is_read = is_read(request.method());
    match url.route.clone()? {
        Route::Unknown => Err(UrlError::NoSuchPath.into()),
        Route::Git(target) => git_protocol::answer(Arc::clone(&app.git), target, request).await,
        Route::Resource(repo, resource) => of_resource(app, (repo, resource), request).await,
        Route::Call(repo, call) if request.method() == Method::POST => {
            admin::act(app, (repo, call), request.uri().query()).await
        }
        Route::Repo(_) if request.method() == Method::POST => Err(UrlError::NoSuchPath.into()),
        Route::Repo(repo) if is_read => Ok(repos::one(app, repo).await?.into_response()),
        Route::Call(..) | Route::Repo(_) => Ok(not_allowed("GET, HEAD, POST")),
        Route::StatusFile(name) => {
            let file = status::file(&name)?;
            Ok(if is_read {
                file
            } else {
                not_allowed("GET, HEAD")
            })
        }
        Route::StatusPage if is_read => status::html(app).await,
        Route::StatusReport if is_read => status::json(app).await,
        Route::Healthz if is_read => Ok(health::healthz().into_response()),
        Route::Readyz if is_read => Ok(health::readyz(&app).into_response()),
        Route::Metrics if is_read => Ok(metrics::metrics(&app)),
        Route::Repos if is_read => {
            // `authorize` has put the caller into every request but those for health.
            let caller = request.extensions().get().cloned();
            let caller = caller.ok_or(ApiError::Unauthenticated)?;
            Ok(repos::list(app, caller).await?.into_response())
        }
        Route::StatusPage
        | Route::StatusReport
        | Route::Healthz
        | Route::Readyz
        | Route::Metrics
        | Route::Repos => Ok(not_allowed("GET, HEAD")),
    }
}

async fn of_resource(
    app: Arc<App>,
    (repo, resource): (RepoName, RepoResource),
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let client = client(&parts);
    app.context.check(&repo)?;
    app.registry.note_use(&repo);
    let is_read = is_read(&parts.method);
    let request = ArchiveRequest {
        repo,
        method: parts.method,
        version: parts.version,
        headers: parts.headers,
    };
    match resource {
        RepoResource::Stable(kind) if is_read => snapshots::stable(app, request, kind).await,
        RepoResource::Immutable(kind, id) if is_read => {
            snapshots::immutable(app, request, kind, id).await
        }
        RepoResource::Refresh if request.method == Method::POST => {
            let published = app.registry.open(&request.repo)?.refresh().await?;
            Ok(refreshed(&app, published))
        }
        RepoResource::EnsureRefs if request.method == Method::POST => {
            ensure_refs::ensure_refs(app, request.repo, (body, client)).await
        }
        RepoResource::Bundle if is_read => bundle::bundle(app, request, parts.uri.query()).await,
        RepoResource::Refresh | RepoResource::EnsureRefs => Ok(not_allowed("POST")),
        RepoResource::Stable(_) | RepoResource::Immutable(..) | RepoResource::Bundle => {
            Ok(not_allowed("GET, HEAD"))
        }
    }
}
