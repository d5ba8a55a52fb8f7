//! Why a git client's request is refused or fails.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use cachewfs_format::api::code;

use crate::mirror::{CredentialError, GitError};

/// Why a git client's request is refused or fails; all who share an answer share it.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::http) enum GitHttpError {
    #[error("the URL asks for no service that there is")]
    BadService,
    #[error("the Git-Protocol header is malformed")]
    BadProtocol,
    #[error("the body is not of the type {expected}")]
    BadContentType { expected: &'static str },
    #[error("the body is encoded in a way other than gzip")]
    BadContentEncoding,
    #[error("the body is longer than {limit} bytes")]
    BodyTooLong { limit: u64 },
    #[error("the body inflates to more than {ratio} times its length")]
    BodyInflates { ratio: u64 },
    #[error("the body is not valid gzip")]
    BadGzip(#[source] Arc<std::io::Error>),
    #[error("the body did not arrive within {}", humantime::format_duration(*.limit))]
    BodyTooSlow { limit: Duration },
    #[error("the body broke off")]
    BodyBroken(#[source] Arc<axum::Error>),
    #[error("the daemon has no room for another git client now")]
    Busy,
    #[error("git failed")]
    Git(#[source] Arc<GitError>),
    #[error("can't write a temporary file")]
    Spool(#[source] Arc<std::io::Error>),
    #[error("upstream can't be reached")]
    Upstream(#[source] Arc<reqwest::Error>),
    #[error("there are no credentials for upstream")]
    Credentials(#[source] Arc<CredentialError>),
    #[error("upstream did not go on within {}", humantime::format_duration(*.limit))]
    UpstreamTooSlow { limit: Duration },
    #[error("upstream sends the request to another place")]
    Redirected,
    #[error("there is no repository at upstream {url}")]
    NotFound { url: String },
    #[error("upstream is a directory of the daemon's, which takes no such request")]
    NotHttp,
}

impl GitHttpError {
    pub(in crate::http) fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadService => (StatusCode::BAD_REQUEST, "bad_service"),
            Self::BadProtocol => (StatusCode::BAD_REQUEST, "bad_git_protocol"),
            Self::BadGzip(_) | Self::BodyBroken(_) => (StatusCode::BAD_REQUEST, "bad_body"),
            Self::BadContentType { .. } | Self::BadContentEncoding => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_body")
            }
            Self::BodyTooLong { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_long"),
            Self::BodyInflates { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_inflates"),
            Self::BodyTooSlow { .. } => (StatusCode::REQUEST_TIMEOUT, "body_too_slow"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Self::Git(_) => (StatusCode::INTERNAL_SERVER_ERROR, "mirror_failed"),
            Self::Spool(_) => (StatusCode::INTERNAL_SERVER_ERROR, "spool_failed"),
            Self::Upstream(_) | Self::Credentials(_) => {
                (StatusCode::BAD_GATEWAY, code::UPSTREAM_FAILED)
            }
            Self::Redirected => (StatusCode::BAD_GATEWAY, code::UPSTREAM_REDIRECTS),
            Self::UpstreamTooSlow { .. } => (StatusCode::GATEWAY_TIMEOUT, code::UPSTREAM_FAILED),
            Self::NotFound { .. } => (StatusCode::NOT_FOUND, code::UPSTREAM_NOT_FOUND),
            Self::NotHttp => (StatusCode::FORBIDDEN, "upstream_is_local"),
        }
    }

    /// What the person who reads the message can do.
    pub(in crate::http) fn advice(&self) -> &'static str {
        match self {
            Self::BadService => {
                "Ask for info/refs?service=git-upload-pack or git-receive-pack; the dumb protocol is not served."
            }
            Self::BadProtocol => "Send version=2, or leave the header out.",
            Self::BadGzip(_) | Self::BodyBroken(_) => "Send the request again.",
            Self::BadContentType { .. } | Self::BadContentEncoding => {
                "Send what git sends, plain or compressed with gzip."
            }
            Self::BodyTooLong { .. } => {
                "Raise max_body_bytes in [git_http] of the daemon's configuration."
            }
            Self::BodyInflates { .. } => "Send the body as it is, not compressed.",
            Self::BodyTooSlow { .. } => {
                "Raise body_timeout in [git_http] of the daemon's configuration."
            }
            Self::Busy | Self::Upstream(_) | Self::UpstreamTooSlow { .. } => {
                "Ask again in a moment."
            }
            Self::Git(_) | Self::Spool(_) | Self::Credentials(_) => "Look at the daemon's log.",
            Self::Redirected => {
                "Ask the operator to write the URL that upstream redirects to into [upstreams]."
            }
            Self::NotFound { .. } => "Check the spelling.",
            Self::NotHttp => "Go to upstream directly.",
        }
    }
}
