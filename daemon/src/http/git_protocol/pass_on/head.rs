//! [`UpstreamHead`]: the head of an answer of upstream.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use cachewfs_format::RepoName;

use crate::http::error::MovedTo;
use crate::http::git_protocol::headers;

/// The head of upstream's answer, as it is passed back to the client.
#[derive(Clone, Debug)]
pub(in crate::http::git_protocol) struct UpstreamHead {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The other repository that upstream redirects the client to, if any.
    pub(super) moved_to: Option<RepoName>,
}

impl UpstreamHead {
    /// Returns the response with this head and `body`.
    pub(in crate::http::git_protocol) fn with(self, body: Body) -> Response {
        let mut response = build(self.status, self.headers, body);
        if let Some(to) = self.moved_to {
            response.extensions_mut().insert(MovedTo(to));
        }
        response
    }

    /// Returns the head of an answer that is no redirect to another repository.
    pub(super) fn of(response: &reqwest::Response) -> Self {
        Self {
            status: response.status(),
            headers: headers::from_upstream(response.headers()),
            moved_to: None,
        }
    }
}

/// Builds a response from its parts.
pub(in crate::http::git_protocol) fn build(
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
