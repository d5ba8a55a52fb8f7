//! Liveness and readiness of the daemon itself. Upstream and the bucket don't count: without them,
//! the daemon still serves its local copies.

use axum::http::StatusCode;

use super::app::App;
use crate::readiness::Readiness;

/// Answers as long as the process runs.
pub(super) fn healthz() -> &'static str {
    "ok\n"
}

/// Answers 200 while the daemon takes requests: after it has found its mirrors, and until a signal
/// tells it to stop.
pub(super) fn readyz(app: &App) -> (StatusCode, &'static str) {
    match app.lifecycle.readiness() {
        Readiness::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Readiness::Ready => (StatusCode::OK, "ready\n"),
        Readiness::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}
