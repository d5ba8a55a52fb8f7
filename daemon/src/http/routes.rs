//! The router, and the parser for URLs below `/git/`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Extension, Json, Router};
use cachewfs_format::api::{REPOS_PATH, RefreshAnswer, kind_of_stem};
use cachewfs_format::{ArchiveKind, RepoName, SnapshotId};

use super::authorize::authorize;
use super::body_budget::BodyBudget;
use super::error::ApiError;
use super::git_protocol::{self, GitServer, GitTarget};
use super::{
    admin, bundle, ensure_refs, health, metrics, observe, published, repos, snapshots, status,
};
use crate::auth::Access;
pub(super) use crate::base::decode_percent;
use crate::config::Config;
use crate::publish::PublishOutcome;
use crate::readiness::Lifecycle;
use crate::repository::Registry;
use crate::store::{RevisionIndex, Store};

/// The state that all requests share.
#[derive(Debug)]
pub(super) struct App {
    pub(super) registry: Arc<Registry>,
    pub(super) store: Store,
    revisions: RevisionIndex,
    lfs_revisions: RevisionIndex,
    pub(super) git: Arc<GitServer>,
    /// The budget for request bodies in memory.
    pub(super) body_budget: BodyBudget,
    pub(super) parsed: published::ParsedArchives,
    pub(super) lookups: published::RecentLookups,
    pub(super) access: Access,
    pub(super) began: Instant,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) status: status::Reports,
}

impl App {
    /// Returns the store in which archives of this kind are published.
    pub(super) fn store_of(&self, kind: ArchiveKind) -> Store {
        match kind {
            ArchiveKind::Mirror | ArchiveKind::Checkout => self.store.clone(),
            ArchiveKind::Lfs => self.store.lfs(),
        }
    }

    /// Returns the index of the revisions of archives of this kind.
    pub(super) fn revisions_of(&self, kind: ArchiveKind) -> &RevisionIndex {
        match kind {
            ArchiveKind::Mirror | ArchiveKind::Checkout => &self.revisions,
            ArchiveKind::Lfs => &self.lfs_revisions,
        }
    }
}

/// Builds the router with all routes.
pub(crate) fn router(
    registry: Arc<Registry>,
    store: Store,
    (access, lifecycle): (Access, Arc<Lifecycle>),
) -> Router {
    let app = Arc::new(App {
        git: Arc::new(GitServer::new(&registry)),
        body_budget: ensure_refs::body_budget(),
        registry,
        revisions: RevisionIndex::new(store.clone()),
        lfs_revisions: RevisionIndex::new(store.lfs()),
        store,
        parsed: published::ParsedArchives::default(),
        lookups: published::RecentLookups::default(),
        access,
        began: Instant::now(),
        lifecycle,
        status: status::Reports::default(),
    });
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .merge(status::routes())
        .route(REPOS_PATH, get(repos::list))
        .route(
            &format!("{REPOS_PATH}/{{*repo}}"),
            get(repos::one).post(admin::act),
        )
        .route("/git/{*rest}", any(git))
        .fallback(async || ApiError::NoSuchPath)
        // The router itself adds the `Allow` header.
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed { allow: None })
        // The last layer is the outermost: refused requests are observed too.
        .layer(from_fn_with_state(Arc::clone(&app), authorize))
        .layer(from_fn_with_state(Arc::clone(&app), observe::observe))
        .with_state(app)
}

/// The target of a URL below `/git/`.
#[derive(Debug)]
pub(super) enum UrlTarget {
    GitProtocol(GitTarget),
    Repository(RepoName, RepoResource),
}

/// The resource of a repository that a URL addresses.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RepoResource {
    Stable(ArchiveKind),
    Immutable(ArchiveKind, SnapshotId),
    Refresh,
    EnsureRefs,
    Bundle,
}

async fn git(
    State(app): State<Arc<App>>,
    Extension(names): Extension<Arc<Config>>,
    request: Request,
) -> Result<Response, ApiError> {
    let rest = request
        .uri()
        .path()
        .strip_prefix("/git/")
        .unwrap_or_default();
    let (repo, target) = match parse_url_target(rest, &names)? {
        UrlTarget::GitProtocol(target) => {
            return git_protocol::answer(Arc::clone(&app.git), target, request).await;
        }
        UrlTarget::Repository(repo, target) => (repo, target),
    };
    let (parts, body) = request.into_parts();
    let client = git_protocol::client(&parts);
    let (method, uri, headers) = (parts.method, parts.uri, parts.headers);
    let version = parts.version;
    app.registry.check(&repo)?;
    app.registry.note_use(&repo);
    let is_read = method == Method::GET || method == Method::HEAD;
    let request = snapshots::ArchiveRequest {
        repo,
        method,
        version,
        headers,
    };
    match target {
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
        RepoResource::Bundle if is_read => bundle::bundle(app, request, uri.query()).await,
        RepoResource::Refresh | RepoResource::EnsureRefs => Ok(not_allowed("POST")),
        RepoResource::Stable(_) | RepoResource::Immutable(..) | RepoResource::Bundle => {
            Ok(not_allowed("GET, HEAD"))
        }
    }
}

/// Returns the answer to a refresh. From now on, all requests see the snapshot in it as the current
/// one.
pub(super) fn refreshed(app: &App, published: PublishOutcome) -> Response {
    if !published.moved {
        // Another daemon may have published it, so cached lookups may be older.
        app.store.has_changed();
    }
    let answer = RefreshAnswer {
        snapshot: published.snapshot,
        moved: published.moved,
    };
    Json(answer).into_response()
}

pub(super) fn not_allowed(allow: &'static str) -> Response {
    let allow = Some(allow);
    ApiError::MethodNotAllowed { allow }.into_response()
}

/// Parses the path of a URL after `/git/`. Authorization and the handler both use this parser, so
/// that they can't disagree about the repository. `names` gives names their canonical spelling.
pub(super) fn parse_url_target(rest: &str, names: &Config) -> Result<UrlTarget, ApiError> {
    if let Some(target) = git_protocol::parse(rest, names)? {
        return Ok(UrlTarget::GitProtocol(target));
    }
    match parse_resource(rest, names) {
        Err(ApiError::NoSuchPath) => {
            let target = git_protocol::parse_other(rest, names)?.ok_or(ApiError::NoSuchPath)?;
            Ok(UrlTarget::GitProtocol(target))
        }
        parsed => parsed.map(|(repo, target)| UrlTarget::Repository(repo, target)),
    }
}

/// Parses `<host>/<path>/<resource>`.
fn parse_resource(rest: &str, names: &Config) -> Result<(RepoName, RepoResource), ApiError> {
    let (before, last) = rest.rsplit_once('/').ok_or(ApiError::NoSuchPath)?;
    match last {
        "refresh" => return Ok((parse_repo(before, names)?, RepoResource::Refresh)),
        "ensure-refs" => return Ok((parse_repo(before, names)?, RepoResource::EnsureRefs)),
        "snapshot.bundle" => return Ok((parse_repo(before, names)?, RepoResource::Bundle)),
        _ => {}
    }
    let stem = last.strip_suffix(".tar.zst").ok_or(ApiError::NoSuchPath)?;
    if let Some(kind) = kind_of_stem(stem) {
        return Ok((parse_repo(before, names)?, RepoResource::Stable(kind)));
    }
    let (before, folder) = before.rsplit_once('/').ok_or(ApiError::NoSuchPath)?;
    let kind = kind_of_stem(folder).ok_or(ApiError::NoSuchPath)?;
    let repo = parse_repo(before, names)?;
    let id = SnapshotId::parse(stem).map_err(ApiError::BadSnapshotId)?;
    Ok((repo, RepoResource::Immutable(kind, id)))
}

/// Parses the name of a repository in a URL path, and returns it in its canonical spelling.
///
/// Percent-encoded characters must be valid in a name after decoding, and an encoded slash is
/// refused.
pub(super) fn parse_repo(path: &str, names: &Config) -> Result<RepoName, ApiError> {
    let decode = |segment: &str| match decode_percent(segment) {
        Some(decoded) if !decoded.contains('/') => Ok(decoded),
        _ => Err(ApiError::BadEncoding),
    };
    let segments: Vec<String> = path.split('/').map(decode).collect::<Result<_, _>>()?;
    let repo = RepoName::parse(&segments.join("/")).map_err(ApiError::BadRepoName)?;
    Ok(names.canonical(repo))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_a_url_asks_for() {
        let commit = "1a".repeat(20);
        let names = Config::default();
        let parse = |rest: &str| parse_resource(rest, &names).unwrap();

        assert_eq!(
            parse("h.org/a/b/snapshot.tar.zst").1,
            RepoResource::Stable(ArchiveKind::Checkout)
        );
        assert_eq!(
            parse("h.org/a%2db.git/mirror.tar.zst").0.as_str(),
            "h.org/a-b"
        );
        let (repo, target) = parse(&format!("h.org/a/snapshot/{commit}.tar.zst"));
        assert_eq!(repo.as_str(), "h.org/a");
        assert_eq!(
            target,
            RepoResource::Immutable(ArchiveKind::Checkout, SnapshotId::parse(&commit).unwrap())
        );
        let (_, target) = parse("h.org/a/lfs-snapshot.tar.zst");
        assert_eq!(target, RepoResource::Stable(ArchiveKind::Lfs));
        assert_eq!(parse("h.org/a/refresh").1, RepoResource::Refresh);
        assert_eq!(parse("h.org/a.git/ensure-refs").1, RepoResource::EnsureRefs);
    }

    #[test]
    fn all_spellings_name_one_repository_if_upstream_ignores_case() {
        let names = Config::default();
        for spelled in ["Org/Repo", "org/repo", "oRG/%52epo", "ORG/REPO.git"] {
            let of = |host: &str| parse_repo(&format!("{host}/{spelled}"), &names);

            assert_eq!(of("github.com").unwrap().as_str(), "github.com/org/repo");
            assert_ne!(of("h.org").unwrap().as_str(), "h.org/Org/repo");
        }
        let kept = parse_repo("h.org/Org/Repo", &names).unwrap();
        assert_eq!(kept.as_str(), "h.org/Org/Repo");
    }

    #[test]
    fn refuses_names_that_could_mean_another_path() {
        for bad in [
            "h.org/../x",
            "h.org/%2e%2e/x",
            "h.org/a%2Fb",
            "h.org//x",
            "h.org/-x",
            "h.org/a%zz",
            "h.org",
        ] {
            let parsed = parse_resource(&format!("{bad}/snapshot.tar.zst"), &Config::default());
            assert!(
                matches!(
                    parsed,
                    Err(ApiError::BadRepoName(_) | ApiError::BadEncoding)
                ),
                "{bad}: {parsed:?}"
            );
        }
    }
}
