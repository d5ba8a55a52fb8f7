//! [`ApiError`]: every reason why a request fails, and its answer.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cachewfs_format::RepoName;
use cachewfs_format::api::{ErrorBody, ErrorDetail, code};
use tracing::{debug, error};

use super::git::GitHttpError;
use super::lfs::lfs_answer;
use super::repository::repository_answer;
use super::store::store_answer;
use crate::auth::PolicyError;
use crate::base::chain;
use crate::http::route::UrlError;
use crate::mirror::MirrorError;
use crate::publish::LfsError;
use crate::repository::RepositoryError;
use crate::store::StoreError;

/// The authentication schemes in `WWW-Authenticate`. git uses the first.
const CHALLENGES: [&str; 2] = ["Basic realm=\"cachewfsd\"", "Bearer realm=\"cachewfsd\""];

/// The new name of a repository, as an extension of a response that mentions it. If the caller may
/// not do the same to the new name, the answer becomes that for an absent repository.
#[derive(Clone, Debug)]
pub(in crate::http) struct MovedTo(pub(in crate::http) RepoName);

/// The reason why a request fails or is refused.
#[derive(Debug, thiserror::Error)]
pub(in crate::http) enum ApiError {
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("method not allowed for this path")]
    MethodNotAllowed { allow: &'static str },
    #[error("no snapshot of {repo} is published")]
    NoSnapshot { repo: RepoName },
    #[error("{repo} has no published snapshot with this id")]
    NoSuchSnapshot { repo: RepoName },
    #[error("the first snapshot of {repo} is not ready yet; its mirror is {state}")]
    NotReady { repo: RepoName, state: &'static str },
    #[error("{repo} has no checkout archive: HEAD can't be checked out, or its tree is too large")]
    NoCheckout { repo: RepoName },
    #[error("no file of HEAD in {repo} uses Git LFS")]
    NoLfs { repo: RepoName },
    #[error("LFS archives are disabled by lfs = \"off\" in the daemon's configuration")]
    LfsOff,
    #[error("the LFS archive of {repo} is not ready yet")]
    LfsNotReady { repo: RepoName },
    #[error(transparent)]
    Lfs(Arc<LfsError>),
    #[error("unknown repository {repo}")]
    UnknownRepo { repo: RepoName },
    #[error(
        "precondition failed: the snapshot doesn't match If-Match, If-Unmodified-Since or the pin"
    )]
    PreconditionFailed,
    #[error("the request body is not JSON of the expected form")]
    BadJson(#[source] serde_json::Error),
    #[error("the request names neither refs nor commits")]
    NothingToEnsure,
    #[error("the request names more than {max} refs or commits")]
    TooManyNames { max: usize },
    #[error("the request body is longer than {max} bytes, or broke off")]
    BodyTooLarge { max: usize },
    #[error("the request body did not arrive in time")]
    BodyTooSlow,
    #[error("the query has no valid base, which is a full commit id in lower case")]
    BadBase,
    #[error("{repo} has no commit with this id, neither in the mirror nor upstream")]
    UnknownBase { repo: RepoName },
    #[error("can't update the mirror from upstream")]
    UpstreamFailed(#[source] RepositoryError),
    #[error("authentication required: the request needs a token of the daemon")]
    Unauthenticated,
    #[error("unknown token")]
    UnknownToken,
    #[error("the request has more than one credential of the same kind")]
    DuplicateCredentials,
    #[error("the daemon's policy denies the action {action}")]
    Forbidden { action: &'static str },
    #[error("the daemon's policy gave no decision")]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Git(#[from] GitHttpError),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("can't read a segment that is being published")]
    Read(#[source] std::io::Error),
    #[error("an internal task of the daemon failed")]
    Task(#[from] tokio::task::JoinError),
}

impl ApiError {
    /// Converts an error of a repository whose mirror exists; for `map_err`. An error of upstream
    /// then means that upstream failed (502), and not that the request is wrong.
    pub(in crate::http) fn of_known_repository(error: RepositoryError) -> Self {
        match &error {
            RepositoryError::Mirror(mirror) => match **mirror {
                MirrorError::NotFound { .. }
                | MirrorError::Redirected { .. }
                | MirrorError::Denied { .. }
                | MirrorError::Unreachable { .. }
                | MirrorError::TimedOut { .. }
                | MirrorError::Upstream { .. }
                | MirrorError::BadHead { .. }
                | MirrorError::Shallow { .. }
                | MirrorError::LeftBehind { .. } => Self::UpstreamFailed(error),
                MirrorError::Moved { .. } | MirrorError::Git(_) | MirrorError::Io { .. } => {
                    Self::Repository(error)
                }
            },
            _ => Self::Repository(error),
        }
    }

    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Url(UrlError::BadRepoName(_) | UrlError::BadEncoding) => {
                (StatusCode::BAD_REQUEST, code::BAD_REPO_NAME)
            }
            Self::Url(UrlError::BadSnapshotId(_)) => {
                (StatusCode::BAD_REQUEST, code::BAD_SNAPSHOT_ID)
            }
            Self::Url(UrlError::NoSuchPath) => (StatusCode::NOT_FOUND, code::NO_SUCH_PATH),
            Self::MethodNotAllowed { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, code::METHOD_NOT_ALLOWED)
            }
            Self::NoSnapshot { .. } | Self::NoSuchSnapshot { .. } => {
                (StatusCode::NOT_FOUND, code::NO_SNAPSHOT)
            }
            Self::NotReady { .. } | Self::LfsNotReady { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, code::SNAPSHOT_NOT_READY)
            }
            Self::NoLfs { .. } => (StatusCode::NOT_FOUND, code::NO_LFS),
            Self::LfsOff => (StatusCode::NOT_IMPLEMENTED, code::LFS_UNAVAILABLE),
            Self::Lfs(error) => lfs_answer(error).status_and_code(),
            Self::NoCheckout { .. } => (StatusCode::NOT_FOUND, code::NO_CHECKOUT),
            Self::UnknownRepo { .. } => (StatusCode::NOT_FOUND, code::UNKNOWN_REPO),
            Self::PreconditionFailed => {
                (StatusCode::PRECONDITION_FAILED, code::PRECONDITION_FAILED)
            }
            Self::UnknownBase { .. } => (StatusCode::NOT_FOUND, code::UNKNOWN_BASE),
            Self::BadJson(_)
            | Self::NothingToEnsure
            | Self::TooManyNames { .. }
            | Self::DuplicateCredentials
            | Self::BadBase => (StatusCode::BAD_REQUEST, code::BAD_REQUEST),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, code::BODY_TOO_LARGE),
            Self::BodyTooSlow => (StatusCode::REQUEST_TIMEOUT, code::BODY_TOO_SLOW),
            Self::Unauthenticated | Self::UnknownToken => {
                (StatusCode::UNAUTHORIZED, code::UNAUTHENTICATED)
            }
            Self::Forbidden { .. } => (StatusCode::FORBIDDEN, code::FORBIDDEN),
            Self::Policy(_) => (StatusCode::INTERNAL_SERVER_ERROR, code::POLICY_FAILED),
            Self::UpstreamFailed(_) => (StatusCode::BAD_GATEWAY, code::UPSTREAM_FAILED),
            Self::Repository(error) => repository_answer(error).status_and_code(),
            Self::Git(error) => error.status_and_code(),
            Self::Store(error) => store_answer(error).status_and_code(),
            Self::Read(_) => (StatusCode::INTERNAL_SERVER_ERROR, code::STORE_FAILED),
            Self::Task(_) => (StatusCode::INTERNAL_SERVER_ERROR, code::INTERNAL),
        }
    }

    /// Returns the next step for the reader of the message.
    fn advice(&self) -> &'static str {
        match self {
            Self::Url(UrlError::BadRepoName(_) | UrlError::BadEncoding | UrlError::NoSuchPath) => {
                "Use /git/<host>/<path>/snapshot.tar.zst, for example \
                 /git/github.com/org/repo/snapshot.tar.zst."
            }
            Self::MethodNotAllowed { .. } => "Use a method of the Allow header.",
            Self::Url(UrlError::BadSnapshotId(_)) => {
                "Use <commit> or <commit>-<16 hexadecimal digits>."
            }
            Self::NoSnapshot { .. } => {
                "Send GET to the stable URL to have the repository mirrored and published."
            }
            Self::NoSuchSnapshot { .. } => {
                "It may have been deleted: resolve the stable URL again."
            }
            Self::NotReady { .. }
            | Self::LfsNotReady { .. }
            | Self::BodyTooSlow
            | Self::UpstreamFailed(_) => "Retry in a moment.",
            Self::NoCheckout { .. } => "Use mirror.tar.zst instead.",
            Self::NoLfs { .. } => "snapshot.tar.zst has all files.",
            Self::LfsOff => "Ask the operator to enable them, or run git lfs pull in a clone.",
            Self::Lfs(error) => lfs_answer(error).advice,
            Self::UnknownRepo { .. } => {
                "Send GET to the stable URL of its snapshot to have it mirrored."
            }
            Self::PreconditionFailed => "Resolve the stable URL again.",
            Self::BadJson(_) | Self::NothingToEnsure => {
                "Send a body such as {\"refs\":{\"refs/heads/main\":\"\"},\"commits\":[]}."
            }
            Self::BadBase => "Use snapshot.bundle?base=<commit>, with 40 or 64 hexadecimal digits.",
            Self::UnknownBase { .. } => "Fetch from upstream instead.",
            Self::TooManyNames { .. } | Self::BodyTooLarge { .. } => {
                "Split the request into smaller ones."
            }
            Self::Unauthenticated | Self::UnknownToken => {
                "Ask the operator for a token, and send it as Authorization: Bearer cwfs_…, \
                 or as the password of Basic authentication."
            }
            Self::DuplicateCredentials => {
                "Send the daemon's token in X-Cachewfs-Token and upstream's in Authorization."
            }
            Self::Forbidden { .. } => "Ask the operator for access.",
            Self::Repository(error) => repository_answer(error).advice,
            Self::Git(error) => error.advice(),
            Self::Store(error) => store_answer(error).advice,
            Self::Read(_) | Self::Task(_) | Self::Policy(_) => "See the daemon's log.",
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.status_and_code();
        let text = chain(&self);
        // Failures of upstream and of jobs are logged by the repository's task.
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            error!(code, error = text, "A request failed");
        } else {
            debug!(code, error = text, "A request was refused");
        }
        let moved_to = match &self {
            Self::Repository(error) => error.moved_to().cloned(),
            _ => None,
        };
        let message = match &moved_to {
            Some(to) => format!("{text}: {to}. {}", self.advice()),
            None => format!("{text}. {}", self.advice()),
        };
        let error = ErrorDetail {
            code: code.to_owned(),
            message,
        };
        let body = Json(ErrorBody {
            error: error.clone(),
        });
        let mut response = (status, body).into_response();
        response.extensions_mut().insert(error);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Self::MethodNotAllowed { allow } = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if status == StatusCode::UNAUTHORIZED {
            for challenge in CHALLENGES {
                headers.append(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static(challenge),
                );
            }
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(to) = moved_to {
            response.extensions_mut().insert(MovedTo(to));
        }
        response
    }
}
