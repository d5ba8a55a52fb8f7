//! The border where errors become answers: a status, a stable code, and a sentence that says what
//! to do.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cachewfs_format::RepoName;
use cachewfs_format::api::{ErrorBody, ErrorDetail, code};
use tracing::{debug, error};

use super::authorize::MovedTo;
use super::git_protocol::GitHttpError;
use super::lfs;
use crate::auth::PolicyError;
use crate::error_chain::chain;
use crate::mirror::{MirrorError, is_disk_full};
use crate::publish::{LfsError, PublishError};
use crate::repository::RepositoryError;
use crate::store::StoreError;

/// How a token may be shown; git takes the first.
const CHALLENGES: [&str; 2] = ["Basic realm=\"cachewfsd\"", "Bearer realm=\"cachewfsd\""];

/// The code of a store that fails.
const STORE_FAILED: &str = "store_failed";

/// Why a request is not answered with what it asks for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the URL names no repository")]
    BadRepoName(#[source] cachewfs_format::Error),
    #[error("the URL names no repository: it is not valid percent-encoding of a name")]
    BadEncoding,
    #[error("the URL names no snapshot")]
    BadSnapshotId(#[source] cachewfs_format::Error),
    #[error("there is nothing at this URL")]
    NoSuchPath,
    #[error("the URL takes no such method")]
    MethodNotAllowed { allow: Option<&'static str> },
    #[error("nothing is published of {repo}")]
    NoSnapshot { repo: RepoName },
    #[error("no snapshot with this id is published of {repo}")]
    NoSuchSnapshot { repo: RepoName },
    #[error("the first snapshot of {repo} is being prepared; its mirror is {state}")]
    NotReady { repo: RepoName, state: &'static str },
    #[error("HEAD of {repo} has a path that git refuses to check out")]
    NoCheckout { repo: RepoName },
    #[error("no file of {repo} is kept with Git LFS")]
    NoLfs { repo: RepoName },
    #[error("the daemon's configuration says lfs = \"off\"")]
    LfsOff,
    #[error("the LFS objects of {repo} are being fetched")]
    LfsNotReady { repo: RepoName },
    #[error(transparent)]
    Lfs(Arc<LfsError>),
    #[error("the daemon knows no repository {repo}")]
    UnknownRepo { repo: RepoName },
    #[error("the snapshot isn't, or is, what the request's condition asks for")]
    PreconditionFailed,
    #[error("the body of the request is no JSON of the form that is wanted")]
    BadJson(#[source] serde_json::Error),
    #[error("the request names neither refs nor commits")]
    NothingToEnsure,
    #[error("the request names more than {max} refs or commits")]
    TooManyNames { max: usize },
    #[error("the body of the request can't be read, or is longer than {max} bytes")]
    BodyTooLarge { max: usize },
    #[error("the body of the request did not come in time")]
    BodyTimedOut,
    #[error("the query names no base: a full commit id in lower case")]
    BadBase,
    #[error("{repo} has no commit with this id, here and upstream")]
    UnknownBase { repo: RepoName },
    #[error("upstream can't be asked")]
    UpstreamFailed(#[source] RepositoryError),
    #[error("this needs a token of the daemon's")]
    Unauthenticated,
    #[error("the token is not one that the daemon knows")]
    UnknownToken,
    #[error("the request shows more than one credential")]
    CredentialsTwice,
    #[error("the daemon's policy doesn't allow the action {action} here")]
    Forbidden { action: &'static str },
    #[error("the daemon's policy can't decide")]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Git(#[from] GitHttpError),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("a segment that is being published can't be read")]
    Read(#[source] std::io::Error),
    #[error("a task of the daemon failed")]
    Task(#[from] tokio::task::JoinError),
}

impl ApiError {
    /// For `map_err`, where the mirror is there: whatever upstream answers, it is a failure of
    /// upstream's, not of the request.
    pub(super) fn of_known_repository(error: RepositoryError) -> Self {
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
            Self::BadRepoName(_) | Self::BadEncoding => {
                (StatusCode::BAD_REQUEST, code::BAD_REPO_NAME)
            }
            Self::BadSnapshotId(_) => (StatusCode::BAD_REQUEST, code::BAD_SNAPSHOT_ID),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no_such_path"),
            Self::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::NoSnapshot { .. } | Self::NoSuchSnapshot { .. } => {
                (StatusCode::NOT_FOUND, code::NO_SNAPSHOT)
            }
            Self::NotReady { .. } | Self::LfsNotReady { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, code::SNAPSHOT_NOT_READY)
            }
            Self::NoLfs { .. } => (StatusCode::NOT_FOUND, code::NO_LFS),
            Self::LfsOff => (StatusCode::NOT_IMPLEMENTED, code::LFS_UNAVAILABLE),
            Self::Lfs(error) => lfs::status_and_code(error),
            Self::NoCheckout { .. } => (StatusCode::NOT_FOUND, code::NO_CHECKOUT),
            Self::UnknownRepo { .. } => (StatusCode::NOT_FOUND, "unknown_repo"),
            Self::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
            Self::UnknownBase { .. } => (StatusCode::NOT_FOUND, code::UNKNOWN_BASE),
            Self::BadJson(_)
            | Self::NothingToEnsure
            | Self::TooManyNames { .. }
            | Self::CredentialsTwice
            | Self::BadBase => (StatusCode::BAD_REQUEST, code::BAD_REQUEST),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, code::BODY_TOO_LARGE),
            Self::BodyTimedOut => (StatusCode::REQUEST_TIMEOUT, code::BAD_REQUEST),
            Self::Unauthenticated | Self::UnknownToken => {
                (StatusCode::UNAUTHORIZED, code::UNAUTHENTICATED)
            }
            Self::Forbidden { .. } => (StatusCode::FORBIDDEN, code::FORBIDDEN),
            Self::Policy(_) => (StatusCode::INTERNAL_SERVER_ERROR, "policy_failed"),
            Self::UpstreamFailed(_) => (StatusCode::BAD_GATEWAY, code::UPSTREAM_FAILED),
            Self::Repository(error) => repository_status(error),
            Self::Git(error) => error.status_and_code(),
            Self::Store(error) => store_status(error),
            Self::Read(_) => (StatusCode::INTERNAL_SERVER_ERROR, STORE_FAILED),
            Self::Task(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    /// What the person who reads the message can do.
    fn advice(&self) -> &'static str {
        match self {
            Self::BadRepoName(_) | Self::BadEncoding | Self::NoSuchPath => {
                "Use /git/<host>/<path>/snapshot.tar.zst, as in /git/github.com/org/repo/snapshot.tar.zst."
            }
            Self::MethodNotAllowed { .. } => "Use one of those in the header Allow.",
            Self::BadSnapshotId(_) => "Use <commit> or <commit>-<16 hexadecimal digits>.",
            Self::NoSnapshot { .. } => "GET the stable URL to have it prepared.",
            Self::NoSuchSnapshot { .. } => "It may be too old: resolve the stable URL again.",
            Self::NotReady { .. }
            | Self::LfsNotReady { .. }
            | Self::BodyTimedOut
            | Self::UpstreamFailed(_) => "Ask again in a moment.",
            Self::NoCheckout { .. } => "Use mirror.tar.zst.",
            Self::NoLfs { .. } => "There is nothing to fetch beside snapshot.tar.zst.",
            Self::LfsOff => "Ask the operator, or use git lfs pull in a clone.",
            Self::Lfs(error) => lfs::advice(error),
            Self::UnknownRepo { .. } => "GET its snapshot to have it mirrored.",
            Self::PreconditionFailed => "Resolve the stable URL again.",
            Self::BadJson(_) | Self::NothingToEnsure => {
                "Send {\"refs\":{\"refs/heads/main\":\"\"},\"commits\":[]}."
            }
            Self::BadBase => "Use snapshot.bundle?base=<commit>, with 40 or 64 hexadecimal digits.",
            Self::UnknownBase { .. } => "Fetch from upstream instead.",
            Self::TooManyNames { .. } | Self::BodyTooLarge { .. } => "Ask for less at once.",
            Self::Unauthenticated | Self::UnknownToken => {
                "Ask the operator for one, and send it as Authorization: Bearer cwfs_…, or as the password."
            }
            Self::CredentialsTwice => {
                "Send the daemon's token in X-Cachewfs-Token and upstream's in Authorization."
            }
            Self::Forbidden { .. } => "Ask the operator.",
            Self::Repository(error) => repository_advice(error),
            Self::Git(error) => error.advice(),
            Self::Store(error) => store_advice(error),
            Self::Read(_) | Self::Task(_) | Self::Policy(_) => "Look at the daemon's log.",
        }
    }
}

/// The stable code of what keeps a repository from being brought up to date.
pub(super) fn repository_code(error: &RepositoryError) -> &'static str {
    repository_status(error).1
}

fn repository_status(error: &RepositoryError) -> (StatusCode, &'static str) {
    if is_disk_full(error) {
        return (StatusCode::INSUFFICIENT_STORAGE, code::DISK_FULL);
    }
    match error {
        RepositoryError::UnknownHost { .. } => (StatusCode::NOT_FOUND, code::UNKNOWN_HOST),
        RepositoryError::NestedInGit { .. } | RepositoryError::OtherSpelling { .. } => {
            (StatusCode::BAD_REQUEST, code::BAD_REPO_NAME)
        }
        RepositoryError::Mirror(error) => match **error {
            MirrorError::NotFound { .. } => (StatusCode::NOT_FOUND, code::UPSTREAM_NOT_FOUND),
            MirrorError::Moved { .. } => (StatusCode::NOT_FOUND, code::UPSTREAM_MOVED),
            MirrorError::Redirected { .. } => (StatusCode::BAD_GATEWAY, code::UPSTREAM_REDIRECTS),
            MirrorError::Denied { .. } => (StatusCode::FORBIDDEN, code::UPSTREAM_DENIED),
            MirrorError::Unreachable { .. } => {
                (StatusCode::BAD_GATEWAY, code::UPSTREAM_UNREACHABLE)
            }
            MirrorError::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, code::UPSTREAM_TIMEOUT),
            MirrorError::Upstream { .. }
            | MirrorError::BadHead { .. }
            | MirrorError::LeftBehind { .. } => (StatusCode::BAD_GATEWAY, code::UPSTREAM_FAILED),
            MirrorError::Shallow { .. } => (StatusCode::BAD_GATEWAY, code::UPSTREAM_SHALLOW),
            MirrorError::Git(_) | MirrorError::Io { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "mirror_failed")
            }
        },
        RepositoryError::Publish(error) => match **error {
            PublishError::RepositoryEmpty => (StatusCode::NOT_FOUND, code::REPOSITORY_EMPTY),
            PublishError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            PublishError::Raced | PublishError::Behind | PublishError::LeaseLost => {
                (StatusCode::SERVICE_UNAVAILABLE, "raced")
            }
            PublishError::BrokenRef { .. }
            | PublishError::Git(_)
            | PublishError::RefusedTree(_)
            | PublishError::TreeTooLarge(_)
            | PublishError::Unusable { .. }
            | PublishError::Store(_)
            | PublishError::Format(_)
            | PublishError::Io { .. }
            | PublishError::BadOutput { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "publish_failed")
            }
        },
        RepositoryError::CheckTimedOut => (StatusCode::BAD_GATEWAY, code::UPSTREAM_FAILED),
        RepositoryError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        RepositoryError::TooManyNew => (StatusCode::SERVICE_UNAVAILABLE, "too_many_new"),
        RepositoryError::Forgotten => (StatusCode::SERVICE_UNAVAILABLE, "forgotten"),
        RepositoryError::Store(error) => store_status(error),
        RepositoryError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    }
}

fn repository_advice(error: &RepositoryError) -> &'static str {
    if is_disk_full(error) {
        return "Make room below data_dir, or give it a larger disk; the daemon tries again by itself.";
    }
    match error {
        RepositoryError::UnknownHost { .. } => {
            "Add the host to [upstreams] in the daemon's configuration."
        }
        RepositoryError::OtherSpelling { .. } => "Write the name in lower case.",
        RepositoryError::NestedInGit { .. } => "Only the last part of a name may end with .git.",
        RepositoryError::Mirror(error) => match **error {
            MirrorError::NotFound { .. } => {
                "Check the spelling; a private repository needs credentials in the daemon's configuration, \
                 and an organisation is not a repository."
            }
            MirrorError::Moved { .. } => "Use the name that the repository has upstream now.",
            MirrorError::Redirected { .. } => {
                "Write the URL that upstream redirects to into [upstreams] of the daemon's configuration."
            }
            MirrorError::Denied { .. } => {
                "Give the daemon credentials that may read it, in its configuration."
            }
            MirrorError::Unreachable { .. }
            | MirrorError::TimedOut { .. }
            | MirrorError::Upstream { .. }
            | MirrorError::BadHead { .. }
            | MirrorError::LeftBehind { .. } => "The daemon tries again by itself.",
            MirrorError::Shallow { .. } => {
                "Give upstream its whole history: git fetch --unshallow there. The daemon tries again by itself."
            }
            MirrorError::Git(_) | MirrorError::Io { .. } => "Look at the daemon's log.",
        },
        RepositoryError::Publish(error) => match **error {
            PublishError::RepositoryEmpty => "Push a commit first.",
            PublishError::Stopping
            | PublishError::Raced
            | PublishError::Behind
            | PublishError::LeaseLost => "Ask again in a moment.",
            PublishError::BrokenRef { .. }
            | PublishError::Git(_)
            | PublishError::RefusedTree(_)
            | PublishError::TreeTooLarge(_)
            | PublishError::Unusable { .. }
            | PublishError::Store(_)
            | PublishError::Format(_)
            | PublishError::Io { .. }
            | PublishError::BadOutput { .. } => "Look at the daemon's log.",
        },
        RepositoryError::Store(error) => store_advice(error),
        RepositoryError::CheckTimedOut
        | RepositoryError::Busy
        | RepositoryError::TooManyNew
        | RepositoryError::Forgotten
        | RepositoryError::Stopping => "Ask again in a moment.",
    }
}

fn store_status(error: &StoreError) -> (StatusCode, &'static str) {
    match error {
        StoreError::Tier(error) if error.is_outage() => {
            (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
        }
        StoreError::Tier(_)
        | StoreError::Unreadable { .. }
        | StoreError::WrongDigest { .. }
        | StoreError::Misplaced { .. }
        | StoreError::Encode { .. }
        | StoreError::BadSegment { .. }
        | StoreError::BeyondEnd
        | StoreError::Gone { .. }
        | StoreError::TooSlow
        | StoreError::Collecting
        | StoreError::Stopping
        | StoreError::Copy(_) => (StatusCode::INTERNAL_SERVER_ERROR, STORE_FAILED),
    }
}

fn store_advice(error: &StoreError) -> &'static str {
    match error {
        StoreError::Tier(error) if error.is_outage() => {
            "Ask again in a moment, or another replica."
        }
        StoreError::Tier(_)
        | StoreError::Unreadable { .. }
        | StoreError::WrongDigest { .. }
        | StoreError::Misplaced { .. }
        | StoreError::Encode { .. }
        | StoreError::BadSegment { .. }
        | StoreError::BeyondEnd
        | StoreError::Gone { .. }
        | StoreError::TooSlow
        | StoreError::Collecting
        | StoreError::Stopping
        | StoreError::Copy(_) => "Look at the daemon's log.",
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.status_and_code();
        let text = chain(&self);
        // What upstream does is logged by the repository's task.
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
        let mut response = (status, Json(ErrorBody { error })).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Self::MethodNotAllowed { allow: Some(allow) } = self {
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
