//! Liveness and readiness: neither looks further than the daemon's own state.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use super::routes::App;
use crate::readiness::Readiness;

/// The process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The daemon has found its mirrors and takes requests; it is not ready any more once it is told to
/// stop.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    match app.lifecycle.readiness() {
        Readiness::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Readiness::Ready => (StatusCode::OK, "ready\n"),
        Readiness::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}
