//! Answers with the page, its report and its files.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::report::Report;
use super::view::View;
use super::{gather, page};
use crate::http::app::App;
use crate::http::error::ApiError;
use crate::http::route::UrlError;

/// The content security policy: scripts, styles and images come from this server only, and none may
/// be inline. Even if escaping failed, text of an upstream that looks like markup could run
/// nothing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Answers `GET /`.
pub(in crate::http) async fn html(app: Arc<App>) -> Result<Response, ApiError> {
    let report = gather::current(&app).await?;
    let page = page::render(&View::of(&report));
    Ok(with_headers("text/html; charset=utf-8", page))
}

/// The report for programs, and its text for the page's script.
#[derive(Debug, Serialize)]
struct StatusAnswer<'a> {
    #[serde(flatten)]
    report: &'a Report,
    view: View,
}

/// Answers `GET /api/v1/status`.
pub(in crate::http) async fn json(app: Arc<App>) -> Result<Response, ApiError> {
    let report = gather::current(&app).await?;
    let answer = StatusAnswer {
        report: &report,
        view: View::of(&report),
    };
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    Ok((no_store, Json(answer)).into_response())
}

/// Answers `GET /status/{file}`.
pub(in crate::http) fn file(name: &str) -> Result<Response, ApiError> {
    let (kind, content) = match name {
        "style.css" => ("text/css; charset=utf-8", include_str!("style.css")),
        "script.js" => ("text/javascript; charset=utf-8", include_str!("script.js")),
        "icon.svg" => ("image/svg+xml", include_str!("icon.svg")),
        _ => return Err(UrlError::NoSuchPath.into()),
    };
    Ok(with_headers(kind, content))
}

fn with_headers(kind: &'static str, content: impl IntoResponse) -> Response {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version of the daemon has other content under the same names.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, content).into_response()
}
