//! The URLs of the page, and their headers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use serde::Serialize;

use super::report::Report;
use super::view::View;
use super::{page, report};
use crate::http::error::ApiError;
use crate::http::routes::App;

/// The content security policy: scripts, styles and images come from this server only, and none may
/// be inline. Even if escaping failed, text of an upstream that looks like markup could run
/// nothing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

pub(in crate::http) fn routes() -> Router<Arc<App>> {
    let style = || asset("text/css; charset=utf-8", include_str!("style.css"));
    let script = || asset("text/javascript; charset=utf-8", include_str!("script.js"));
    let icon = || asset("image/svg+xml", include_str!("icon.svg"));
    Router::new()
        .route("/", get(html))
        .route("/api/v1/status", get(json))
        .route("/status/style.css", get(async move || style()))
        .route("/status/script.js", get(async move || script()))
        .route("/status/icon.svg", get(async move || icon()))
}

/// Answers `GET /`.
async fn html(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let report = report::current(&app).await?;
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
async fn json(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let report = report::current(&app).await?;
    let answer = StatusAnswer {
        report: &report,
        view: View::of(&report),
    };
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    Ok((no_store, Json(answer)).into_response())
}

fn asset(kind: &'static str, content: &'static str) -> Response {
    with_headers(kind, content)
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
