//! Small answers that several handlers give.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use cachewfs_format::api::RefreshAnswer;

use super::app::App;
use super::error::ApiError;
use crate::publish::PublishOutcome;

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
    ApiError::MethodNotAllowed { allow }.into_response()
}
