//! Answers with an archive: validators, preconditions, ranges and pins.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header, response};
use axum::response::{IntoResponse as _, Response};
use cachewfs_format::ArchiveKind;
use cachewfs_format::api::{
    BUNDLE_URL_HEADER, NOTICE_HEADER, SNAPSHOT_COMMIT_HEADER, SNAPSHOT_PIN_HEADER, bundle_path,
    immutable_path,
};

use super::app::App;
use super::body::stream_range;
use super::catalog::{PublishedArchive, Revision};
use super::conditional::{PreconditionOutcome, Validators};
use super::direct;
use super::error::ApiError;
use super::pin::{self, Pin};
use super::range::{self, RequestedRange};
use super::request::ArchiveRequest;

const NO_CACHE: &str = "no-cache";
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// Answers with the current revision, or with an older one that `If-Match` pins a download to.
pub(super) async fn answer_current(
    app: &Arc<App>,
    request: &ArchiveRequest,
    (published, pin): (&PublishedArchive, Pin),
) -> Result<Response, ApiError> {
    if let Some(older) = pinned_by_condition(app, request, published).await? {
        return Ok(answer_stable(app, request, &older));
    }
    Ok(match pin {
        Pin::Probe => answer_probe(request, published),
        Pin::Absent | Pin::Revision(_) => answer_stable(app, request, published),
    })
}

/// Returns the older revision that a range request with `If-Match` continues, unless
/// `if_match_pins` is off.
async fn pinned_by_condition(
    app: &Arc<App>,
    request: &ArchiveRequest,
    current: &PublishedArchive,
) -> Result<Option<PublishedArchive>, ApiError> {
    let tag = request.headers.get(header::IF_MATCH);
    let tag = tag.and_then(|tag| tag.to_str().ok()).map(str::trim);
    let Some(tag) = tag.filter(|&tag| {
        app.context.config.now().if_match_pins
            && tag != current.etag
            && request.headers.contains_key(header::RANGE)
    }) else {
        return Ok(None);
    };
    // The client fetches an older snapshot range by range. With 412 it would have to start again,
    // although the snapshot is still in the store.
    let Some(toc) = pin::toc_of(tag) else {
        return Ok(None);
    };
    app.catalog
        .find(&request.repo, (Revision::Toc(toc), current.kind))
        .await
}

/// Returns an answer of an immutable URL.
pub(super) async fn answer_immutable(
    request: &ArchiveRequest,
    published: &PublishedArchive,
) -> Response {
    let planned = plan(request, published, IMMUTABLE);
    // A whole archive consists of several segments, so no single URL in the bucket has it.
    if let Planned::Part(_, part) = &planned
        && let Some(redirect) = direct::redirect(request, published, part).await
    {
        return redirect;
    }
    planned.into_response(published)
}

/// Returns the answer to a probe, which has no body. A GET must have `Content-Length: 0` then, so
/// the archive's size is in `Content-Range`, in the form of a 416. A HEAD has it in
/// `Content-Length` too.
fn answer_probe(request: &ArchiveRequest, published: &PublishedArchive) -> Response {
    let builder = headers(request, published, NO_CACHE)
        .header(header::VARY, SNAPSHOT_PIN_HEADER)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_RANGE, format!("bytes */{}", published.size))
        .header(SNAPSHOT_PIN_HEADER, pin::token(&published.etag));
    let builder = match request.method {
        Method::HEAD => builder.header(header::CONTENT_LENGTH, published.size),
        _ => builder,
    };
    finish(builder.status(StatusCode::OK), Body::empty())
}

/// Returns an answer of the stable URL. It has the pin token of its revision. If the mirror is
/// ahead of the snapshot, it also has the URL of a bundle that updates a clone.
pub(super) fn answer_stable(
    app: &App,
    request: &ArchiveRequest,
    published: &PublishedArchive,
) -> Response {
    let mut response = answer(request, published, NO_CACHE);
    let headers = response.headers_mut();
    if let Ok(token) = pin::token(&published.etag).parse() {
        headers.insert(SNAPSHOT_PIN_HEADER, token);
    }
    headers.insert(header::VARY, HeaderValue::from_static(SNAPSHOT_PIN_HEADER));
    let base = published.snapshot.commit();
    if published.kind == ArchiveKind::Lfs {
        // Bundles contain no LFS objects.
        return response;
    }
    let repository = app.registry.find(&request.repo);
    let head = repository.and_then(|repository| repository.status().head);
    // The null commit stands for an unborn HEAD, from which no bundle can start.
    if head.is_some_and(|head| head != base && !base.is_null())
        && let Ok(path) = bundle_path(&request.repo, base).parse()
    {
        headers.insert(BUNDLE_URL_HEADER, path);
    }
    response
}

fn headers(
    request: &ArchiveRequest,
    published: &PublishedArchive,
    cache_control: &'static str,
) -> response::Builder {
    let builder = Response::builder()
        .header(header::ETAG, &published.etag)
        .header(
            header::LAST_MODIFIED,
            httpdate::fmt_http_date(published.modified),
        )
        .header(header::CACHE_CONTROL, cache_control)
        .header(
            header::CONTENT_LOCATION,
            immutable_path(&request.repo, published.kind, published.snapshot),
        )
        .header(
            SNAPSHOT_COMMIT_HEADER,
            published.snapshot.commit().to_string(),
        );
    let notice = published.notice.as_deref();
    match notice.and_then(|notice| HeaderValue::from_str(notice).ok()) {
        Some(notice) => builder.header(NOTICE_HEADER, notice),
        None => builder,
    }
}

/// The kind of answer that preconditions and `Range` lead to.
enum Planned {
    /// An answer without bytes of the archive.
    Bare(Response),
    /// The whole archive.
    All(response::Builder),
    /// A part of the archive.
    Part(response::Builder, Range<u64>),
}

impl Planned {
    fn into_response(self, published: &PublishedArchive) -> Response {
        let (builder, part) = match self {
            Self::Bare(response) => return response,
            Self::All(builder) => (builder, 0..published.size),
            Self::Part(builder, part) => (builder, part),
        };
        finish(builder, stream_range(Arc::clone(&published.archive), part))
    }
}

fn answer(
    request: &ArchiveRequest,
    published: &PublishedArchive,
    cache_control: &'static str,
) -> Response {
    plan(request, published, cache_control).into_response(published)
}

fn plan(
    request: &ArchiveRequest,
    published: &PublishedArchive,
    cache_control: &'static str,
) -> Planned {
    let validators = Validators {
        etag: &published.etag,
        modified: published.modified,
    };
    // RFC 9110 section 13.2.2: preconditions come before `Range`.
    let outcome = validators.check(&request.headers);
    if outcome == PreconditionOutcome::Failed {
        return Planned::Bare(ApiError::PreconditionFailed.into_response());
    }
    let bare = |builder| Planned::Bare(finish(builder, Body::empty()));
    let builder = headers(request, published, cache_control);
    if outcome == PreconditionOutcome::NotModified {
        return bare(builder.status(StatusCode::NOT_MODIFIED));
    }
    let builder = builder
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_TYPE, "application/zstd");
    let size = published.size;
    let wanted = match request
        .headers
        .get(header::RANGE)
        .map(|value| value.to_str().unwrap_or_default())
    {
        // RFC 9110 section 14.2: Range is for GET only.
        Some(value)
            if request.method == Method::GET && validators.allows_range(&request.headers) =>
        {
            range::parse(value, size)
        }
        _ => RequestedRange::All,
    };
    match wanted {
        RequestedRange::All => {
            let builder = builder
                .status(StatusCode::OK)
                .header(header::CONTENT_LENGTH, size);
            if request.method == Method::HEAD {
                return bare(builder);
            }
            Planned::All(builder)
        }
        RequestedRange::Part(part) => {
            let content_range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            let builder = builder
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, content_range)
                .header(header::CONTENT_LENGTH, part.end - part.start);
            Planned::Part(builder, part)
        }
        RequestedRange::Unsatisfiable => bare(
            builder
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{size}")),
        ),
    }
}

fn finish(builder: response::Builder, body: Body) -> Response {
    builder
        .body(body)
        .expect("all header values are checked names, digests and numbers")
}
