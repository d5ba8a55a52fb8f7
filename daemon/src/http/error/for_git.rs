//! Errors for git: git prints the body of an error only if it is plain text.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use cachewfs_format::api::ErrorDetail;

use crate::http::route::ParsedUrl;

/// Answers git with the text of an error instead of JSON. Without this, a person who pushes sees
/// only a status, such as `The requested URL returned error: 403`.
pub(in crate::http) async fn answer_git_in_text(
    Extension(url): Extension<Arc<ParsedUrl>>,
    request: Request,
    next: Next,
) -> Response {
    let is_git = url.endpoint.is_of_git() && is_from_git(request.headers());
    let mut response = next.run(request).await;
    if is_git && let Some(error) = response.extensions_mut().remove::<ErrorDetail>() {
        let text = format!("{} ({})\n", error.message, error.code);
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        // git compares the whole value, without parameters.
        let text_plain = HeaderValue::from_static("text/plain");
        headers.insert(header::CONTENT_TYPE, text_plain);
        *response.body_mut() = Body::from(text);
    }
    response
}

/// Returns whether the client is git, or calls itself so. Other clients may expect JSON.
fn is_from_git(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT);
    agent.is_some_and(|agent| agent.as_bytes().starts_with(b"git/"))
}
