//! Which request goes where.

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
use super::bodies::Bodies;
use super::error::ApiError;
use super::git_protocol::{self, GitServer};
use super::{
    admin, bundle, ensure_refs, health, metrics, observe, published, repos, snapshots, status,
};
use crate::auth::Access;
use crate::config::Config;
pub(super) use crate::percent::decode_percent;
use crate::publish::PublishOutcome;
use crate::readiness::Life;
use crate::repository::Registry;
use crate::store::{RevisionIndex, Store};

/// What all requests share.
#[derive(Debug)]
pub(super) struct App {
    pub(super) registry: Arc<Registry>,
    pub(super) store: Store,
    revisions: RevisionIndex,
    lfs_revisions: RevisionIndex,
    pub(super) git: Arc<GitServer>,
    /// Bodies in memory.
    pub(super) bodies: Bodies,
    pub(super) archives: published::Archives,
    pub(super) found: published::Found,
    pub(super) access: Access,
    pub(super) began: Instant,
    pub(super) life: Arc<Life>,
    pub(super) status: status::Reports,
}

impl App {
    /// Where archives of this kind are published.
    pub(super) fn store_of(&self, kind: ArchiveKind) -> Store {
        match kind {
            ArchiveKind::Mirror | ArchiveKind::Checkout => self.store.clone(),
            ArchiveKind::Lfs => self.store.lfs(),
        }
    }

    /// The revisions that there are of archives of this kind.
    pub(super) fn revisions_of(&self, kind: ArchiveKind) -> &RevisionIndex {
        match kind {
            ArchiveKind::Mirror | ArchiveKind::Checkout => &self.revisions,
            ArchiveKind::Lfs => &self.lfs_revisions,
        }
    }
}

/// All routes.
pub(crate) fn router(
    registry: Arc<Registry>,
    store: Store,
    (access, life): (Access, Arc<Life>),
) -> Router {
    let app = Arc::new(App {
        git: Arc::new(GitServer::new(&registry)),
        bodies: ensure_refs::bodies(),
        registry,
        revisions: RevisionIndex::new(store.clone()),
        lfs_revisions: RevisionIndex::new(store.lfs()),
        store,
        archives: published::Archives::default(),
        found: published::Found::default(),
        access,
        began: Instant::now(),
        life,
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
        // The router adds the methods that there are.
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed { allow: None })
        .layer(from_fn_with_state(Arc::clone(&app), authorize))
        .layer(from_fn_with_state(Arc::clone(&app), observe::observe))
        .with_state(app)
}

/// What a URL below `/git/` is about.
#[derive(Debug)]
pub(super) enum Asked {
    Git(git_protocol::Target),
    Published(RepoName, Target),
}

/// What a URL below `/git/` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
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
    let (repo, target) = match parse(rest, &names)? {
        Asked::Git(target) => {
            return git_protocol::answer(Arc::clone(&app.git), target, request).await;
        }
        Asked::Published(repo, target) => (repo, target),
    };
    let (parts, body) = request.into_parts();
    let client = git_protocol::client(&parts);
    let (method, uri, headers) = (parts.method, parts.uri, parts.headers);
    let version = parts.version;
    app.registry.check(&repo)?;
    app.registry.note_use(&repo);
    let is_read = method == Method::GET || method == Method::HEAD;
    let request = snapshots::Request {
        repo,
        method,
        version,
        headers,
    };
    match target {
        Target::Stable(kind) if is_read => snapshots::stable(app, request, kind).await,
        Target::Immutable(kind, id) if is_read => {
            snapshots::immutable(app, request, kind, id).await
        }
        Target::Refresh if request.method == Method::POST => {
            let published = app.registry.open(&request.repo)?.refresh().await?;
            Ok(refreshed(&app, published))
        }
        Target::EnsureRefs if request.method == Method::POST => {
            ensure_refs::ensure_refs(app, request.repo, (body, client)).await
        }
        Target::Bundle if is_read => bundle::bundle(app, request, uri.query()).await,
        Target::Refresh | Target::EnsureRefs => Ok(not_allowed("POST")),
        Target::Stable(_) | Target::Immutable(..) | Target::Bundle => Ok(not_allowed("GET, HEAD")),
    }
}

/// The answer to who wished a publish, who from now on is shown what it left as current.
pub(super) fn refreshed(app: &App, published: PublishOutcome) -> Response {
    if !published.moved {
        // It may have been another daemon's.
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

/// Understands the path of a URL after `/git/`: for the check of who may, and for the answer alike. `names`
/// says how names are spelled.
pub(super) fn parse(rest: &str, names: &Config) -> Result<Asked, ApiError> {
    if let Some(target) = git_protocol::parse(rest, names)? {
        return Ok(Asked::Git(target));
    }
    match parse_target(rest, names) {
        Err(ApiError::NoSuchPath) => {
            let target = git_protocol::parse_other(rest, names)?.ok_or(ApiError::NoSuchPath)?;
            Ok(Asked::Git(target))
        }
        parsed => parsed.map(|(repo, target)| Asked::Published(repo, target)),
    }
}

/// Splits `<host>/<path>/<what>`.
fn parse_target(rest: &str, names: &Config) -> Result<(RepoName, Target), ApiError> {
    let (before, last) = rest.rsplit_once('/').ok_or(ApiError::NoSuchPath)?;
    match last {
        "refresh" => return Ok((parse_repo(before, names)?, Target::Refresh)),
        "ensure-refs" => return Ok((parse_repo(before, names)?, Target::EnsureRefs)),
        "snapshot.bundle" => return Ok((parse_repo(before, names)?, Target::Bundle)),
        _ => {}
    }
    let stem = last.strip_suffix(".tar.zst").ok_or(ApiError::NoSuchPath)?;
    if let Some(kind) = kind_of_stem(stem) {
        return Ok((parse_repo(before, names)?, Target::Stable(kind)));
    }
    let (before, folder) = before.rsplit_once('/').ok_or(ApiError::NoSuchPath)?;
    let kind = kind_of_stem(folder).ok_or(ApiError::NoSuchPath)?;
    let repo = parse_repo(before, names)?;
    let id = SnapshotId::parse(stem).map_err(ApiError::BadSnapshotId)?;
    Ok((repo, Target::Immutable(kind, id)))
}

/// Parses the name of a repository in a URL path; what is percent-encoded must, decoded, be good in
/// a name too, so an encoded slash is refused. Gives the one spelling that the repository has.
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
        let parse = |rest: &str| parse_target(rest, &names).unwrap();

        assert_eq!(
            parse("h.org/a/b/snapshot.tar.zst").1,
            Target::Stable(ArchiveKind::Checkout)
        );
        assert_eq!(
            parse("h.org/a%2db.git/mirror.tar.zst").0.as_str(),
            "h.org/a-b"
        );
        let (repo, target) = parse(&format!("h.org/a/snapshot/{commit}.tar.zst"));
        assert_eq!(repo.as_str(), "h.org/a");
        assert_eq!(
            target,
            Target::Immutable(ArchiveKind::Checkout, SnapshotId::parse(&commit).unwrap())
        );
        let (_, target) = parse("h.org/a/lfs-snapshot.tar.zst");
        assert_eq!(target, Target::Stable(ArchiveKind::Lfs));
        assert_eq!(parse("h.org/a/refresh").1, Target::Refresh);
        assert_eq!(parse("h.org/a.git/ensure-refs").1, Target::EnsureRefs);
    }

    #[test]
    fn all_spellings_are_one_repository_where_upstream_ignores_case() {
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
    fn refuses_names_that_lead_astray() {
        for bad in [
            "h.org/../x",
            "h.org/%2e%2e/x",
            "h.org/a%2Fb",
            "h.org//x",
            "h.org/-x",
            "h.org/a%zz",
            "h.org",
        ] {
            let parsed = parse_target(&format!("{bad}/snapshot.tar.zst"), &Config::default());
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
