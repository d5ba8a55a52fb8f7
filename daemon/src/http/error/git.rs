//! Errors of requests of git clients, with their statuses, codes and next steps.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use cachewfs_format::api::code;

use crate::mirror::{CredentialError, GitError};

/// The reason why a git client's request is refused or fails. It can be cloned for all requests
/// that share an answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::http) enum GitHttpError {
    #[error("unknown git service in the URL")]
    BadService,
    #[error("malformed Git-Protocol header")]
    BadProtocol,
    #[error("the Content-Type of the request is not {expected}")]
    BadContentType { expected: &'static str },
    #[error("the Content-Encoding of the request is neither gzip nor identity")]
    BadContentEncoding,
    #[error("the request body is longer than {limit} bytes")]
    BodyTooLarge { limit: u64 },
    #[error("the request body inflates to more than {ratio} times its length")]
    BodyInflates { ratio: u64 },
    #[error("the request body is not valid gzip")]
    BadGzip(#[source] Arc<std::io::Error>),
    #[error("the request body did not arrive within {}", humantime::format_duration(*.limit))]
    BodyTooSlow { limit: Duration },
    #[error("the request body broke off")]
    BodyBroken(#[source] Arc<axum::Error>),
    #[error("the daemon is busy: too many requests, git processes or request bodies at a time")]
    Busy,
    #[error("git upload-pack failed")]
    Git(#[source] Arc<GitError>),
    #[error("can't write or read a temporary file")]
    Spool(#[source] Arc<std::io::Error>),
    #[error("the request to upstream failed")]
    Upstream(#[source] Arc<reqwest::Error>),
    #[error("can't get the daemon's credentials for upstream")]
    Credentials(#[source] Arc<CredentialError>),
    #[error(
        "upstream sent no answer, or not all of it, within {}",
        humantime::format_duration(*.limit)
    )]
    UpstreamTooSlow { limit: Duration },
    #[error("upstream redirects the request to an unexpected URL")]
    Redirected,
    #[error("no repository at upstream {url}")]
    NotFound { url: String },
    #[error("upstream is a local directory of the daemon, which can't take this request")]
    NotHttp,
}

impl GitHttpError {
    pub(super) fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadService => (StatusCode::BAD_REQUEST, code::BAD_SERVICE),
            Self::BadProtocol => (StatusCode::BAD_REQUEST, code::BAD_GIT_PROTOCOL),
            Self::BadGzip(_) | Self::BodyBroken(_) => (StatusCode::BAD_REQUEST, code::BAD_BODY),
            Self::BadContentType { .. } | Self::BadContentEncoding => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, code::UNSUPPORTED_BODY)
            }
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, code::BODY_TOO_LARGE),
            Self::BodyInflates { .. } => (StatusCode::PAYLOAD_TOO_LARGE, code::BODY_INFLATES),
            Self::BodyTooSlow { .. } => (StatusCode::REQUEST_TIMEOUT, code::BODY_TOO_SLOW),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, code::BUSY),
            Self::Git(_) => (StatusCode::INTERNAL_SERVER_ERROR, code::MIRROR_FAILED),
            Self::Spool(_) => (StatusCode::INTERNAL_SERVER_ERROR, code::SPOOL_FAILED),
            Self::Upstream(_) | Self::Credentials(_) => {
                (StatusCode::BAD_GATEWAY, code::UPSTREAM_FAILED)
            }
            Self::Redirected => (StatusCode::BAD_GATEWAY, code::UPSTREAM_REDIRECTS),
            Self::UpstreamTooSlow { .. } => (StatusCode::GATEWAY_TIMEOUT, code::UPSTREAM_FAILED),
            Self::NotFound { .. } => (StatusCode::NOT_FOUND, code::UPSTREAM_NOT_FOUND),
            Self::NotHttp => (StatusCode::FORBIDDEN, code::UPSTREAM_IS_LOCAL),
        }
    }

    /// Returns the next step for the reader of the message.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::BadService => {
                "Ask for info/refs?service=git-upload-pack or git-receive-pack; the dumb protocol \
                 is not served."
            }
            Self::BadProtocol => "Send version=2, or omit the header.",
            Self::BadGzip(_) | Self::BodyBroken(_) | Self::BodyTooSlow { .. } => {
                "Send the request again."
            }
            Self::BadContentType { .. } | Self::BadContentEncoding => {
                "Send the body as git does, plain or compressed with gzip."
            }
            Self::BodyTooLarge { .. } => "Ask for fewer commits at once.",
            Self::BodyInflates { .. } => "Send the body uncompressed.",
            Self::Busy | Self::Upstream(_) | Self::UpstreamTooSlow { .. } => "Retry in a moment.",
            Self::Git(_) | Self::Spool(_) | Self::Credentials(_) => "See the daemon's log.",
            Self::Redirected => {
                "Ask the operator to write the URL that upstream redirects to into [upstreams]."
            }
            Self::NotFound { .. } => "Check the spelling.",
            Self::NotHttp => "Send the request to upstream directly.",
        }
    }
}
