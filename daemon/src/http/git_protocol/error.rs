//! Why a git client's request is refused or fails.

use std::sync::Arc;
use std::time::Duration;

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
