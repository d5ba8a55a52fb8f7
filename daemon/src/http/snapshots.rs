//! Serving archives: the stable URL of what is current, the immutable URL of each snapshot.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{HeaderMap, Method, StatusCode, header, response};
use axum::response::Response;
use cachewfs_format::api::{SNAPSHOT_COMMIT_HEADER, immutable_path};
use cachewfs_format::{ArchiveKind, Digest, Manifest, RepoName, SnapshotId};

use super::body::stream_range;
use super::conditional::{Condition, Validators};
use super::error::ApiError;
use super::range::{self, Wanted};
use super::routes::App;
use crate::repository::RepositoryError;
use crate::store::Archive;

const NO_CACHE: &str = "no-cache";
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// A request for an archive.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) repo: RepoName,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
}

/// One archive of one snapshot: all that an answer is made of is of one revision.
#[derive(Clone, Debug)]
pub(super) struct Published {
    snapshot: SnapshotId,
    kind: ArchiveKind,
    etag: String,
    size: u64,
    modified: SystemTime,
    archive: Arc<Archive>,
}

impl Published {
    fn new(app: &App, manifest: &Manifest, kind: ArchiveKind) -> Option<Self> {
        let layout = manifest.archives.get(&kind)?;
        Some(Self {
            snapshot: manifest.snapshot,
            kind,
            etag: format!("\"{}\"", layout.toc),
            size: layout.size,
            modified: UNIX_EPOCH + Duration::from_secs(manifest.created_at),
            archive: Arc::new(Archive::new(
                app.store.clone(),
                manifest.repo.clone(),
                layout,
            )),
        })
    }
}

/// Answers with the current snapshot. A GET also has the repository mirrored, if it isn't.
pub(super) async fn stable(
    app: Arc<App>,
    request: Request,
    kind: ArchiveKind,
) -> Result<Response, ApiError> {
    let is_get = request.method == Method::GET;
    let repository = if is_get {
        Some(app.registry.open(&request.repo)?)
    } else {
        app.registry.find(&request.repo)
    };
    let (finder, repo) = (Arc::clone(&app), request.repo.clone());
    let current = tokio::task::spawn_blocking(move || find_current(&finder, &repo, kind)).await??;
    if let Some(published) = current {
        return Ok(answer(&request, &published, NO_CACHE));
    }
    let repo = request.repo;
    let Some(status) = repository.map(|repository| repository.status()) else {
        return Err(ApiError::NoSnapshot { repo });
    };
    match status.error {
        Some(error @ (RepositoryError::Mirror(_) | RepositoryError::Publish(_))) => {
            Err(error.into())
        }
        _ if is_get => Err(ApiError::NotReady {
            repo,
            state: status.state.as_str(),
        }),
        _ => Err(ApiError::NoSnapshot { repo }),
    }
}

/// Answers with the snapshot that the URL names.
pub(super) async fn immutable(
    app: Arc<App>,
    request: Request,
    kind: ArchiveKind,
    id: SnapshotId,
) -> Result<Response, ApiError> {
    let repo = request.repo.clone();
    let find = move || {
        let manifest = app.store.manifest(&repo, id)?;
        Ok::<_, ApiError>(manifest.and_then(|(manifest, _)| Published::new(&app, &manifest, kind)))
    };
    match tokio::task::spawn_blocking(find).await?? {
        Some(published) => Ok(answer(&request, &published, IMMUTABLE)),
        None => Err(ApiError::NoSuchSnapshot { repo: request.repo }),
    }
}

fn find_current(
    app: &App,
    repo: &RepoName,
    kind: ArchiveKind,
) -> Result<Option<Published>, ApiError> {
    let Some(pointer) = app.store.pointer(repo)? else {
        return Ok(None);
    };
    let key: (Digest, ArchiveKind) = (pointer.manifest, kind);
    let lock = || app.archives.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(published) = lock().get(&key) {
        return Ok(Some(published.clone()));
    }
    let manifest = app.store.current_manifest(repo, &pointer)?;
    let published = Published::new(app, &manifest, kind)
        .ok_or_else(|| ApiError::NoCheckout { repo: repo.clone() })?;
    lock().put(key, published.clone());
    Ok(Some(published))
}

fn answer(request: &Request, published: &Published, cache_control: &'static str) -> Response {
    let Request {
        repo,
        method,
        headers,
    } = request;
    let validators = Validators {
        etag: &published.etag,
        modified: published.modified,
    };
    let condition = validators.check(headers);
    if condition == Condition::Failed {
        return axum::response::IntoResponse::into_response(ApiError::PreconditionFailed);
    }
    let builder = Response::builder()
        .header(header::ETAG, &published.etag)
        .header(
            header::LAST_MODIFIED,
            httpdate::fmt_http_date(published.modified),
        )
        .header(header::CACHE_CONTROL, cache_control)
        .header(
            header::CONTENT_LOCATION,
            immutable_path(repo, published.kind, published.snapshot),
        )
        .header(
            SNAPSHOT_COMMIT_HEADER,
            published.snapshot.commit().to_string(),
        );
    if condition == Condition::NotModified {
        return finish(builder.status(StatusCode::NOT_MODIFIED), Body::empty());
    }
    let builder = builder
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_TYPE, "application/zstd");
    let size = published.size;
    let wanted = match headers
        .get(header::RANGE)
        .map(|value| value.to_str().unwrap_or_default())
    {
        // RFC 9110 section 14.2: Range is for GET only.
        Some(value) if *method == Method::GET && validators.allows_range(headers) => {
            range::parse(value, size)
        }
        _ => Wanted::All,
    };
    let (builder, part) = match wanted {
        Wanted::All => (builder.status(StatusCode::OK), 0..size),
        Wanted::Part(part) => {
            let content_range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            let builder = builder.header(header::CONTENT_RANGE, content_range);
            (builder.status(StatusCode::PARTIAL_CONTENT), part)
        }
        Wanted::Unsatisfiable => {
            let builder = builder
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{size}"));
            return finish(builder, Body::empty());
        }
    };
    let builder = builder.header(header::CONTENT_LENGTH, part.end - part.start);
    if *method == Method::HEAD {
        return finish(builder, Body::empty());
    }
    finish(builder, stream_range(Arc::clone(&published.archive), part))
}

fn finish(builder: response::Builder, body: Body) -> Response {
    builder
        .body(body)
        .expect("all header values are checked names, digests and numbers")
}
