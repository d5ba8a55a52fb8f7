//! The border where errors become HTTP answers: a status, a stable code, and a message that ends
//! with the next step.
//!
//! Codes are part of the interface (`docs/http-api.md`); messages may change.

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
use crate::base::chain;
use crate::mirror::{MirrorError, is_disk_full};
use crate::publish::{LfsError, PublishError};
use crate::repository::RepositoryError;
use crate::store::StoreError;

/// The authentication schemes in `WWW-Authenticate`. git uses the first.
const CHALLENGES: [&str; 2] = ["Basic realm=\"cachewfsd\"", "Bearer realm=\"cachewfsd\""];

/// The code of answers that failed because the store did.
const STORE_FAILED: &str = "store_failed";

/// The code of answers to a request whose body did not arrive in time.
pub(super) const BODY_TOO_SLOW: &str = "body_too_slow";

/// The reason why a request fails or is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("invalid repository name in the URL")]
    BadRepoName(#[source] cachewfs_format::Error),
    #[error("invalid percent-encoding, or an encoded slash, in the repository name of the URL")]
    BadEncoding,
    #[error("invalid snapshot id in the URL")]
    BadSnapshotId(#[source] cachewfs_format::Error),
    #[error("unknown path")]
    NoSuchPath,
    #[error("method not allowed for this path")]
    MethodNotAllowed { allow: Option<&'static str> },
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
            | Self::DuplicateCredentials
            | Self::BadBase => (StatusCode::BAD_REQUEST, code::BAD_REQUEST),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, code::BODY_TOO_LARGE),
            Self::BodyTooSlow => (StatusCode::REQUEST_TIMEOUT, BODY_TOO_SLOW),
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

    /// Returns the next step for the reader of the message.
    fn advice(&self) -> &'static str {
        match self {
            Self::BadRepoName(_) | Self::BadEncoding | Self::NoSuchPath => {
                "Use /git/<host>/<path>/snapshot.tar.zst, for example \
                 /git/github.com/org/repo/snapshot.tar.zst."
            }
            Self::MethodNotAllowed { .. } => "Use a method of the Allow header.",
            Self::BadSnapshotId(_) => "Use <commit> or <commit>-<16 hexadecimal digits>.",
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
            Self::Lfs(error) => lfs::advice(error),
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
            Self::Repository(error) => repository_advice(error),
            Self::Git(error) => error.advice(),
            Self::Store(error) => store_advice(error),
            Self::Read(_) | Self::Task(_) | Self::Policy(_) => "See the daemon's log.",
        }
    }
}

/// Returns the stable code of an error that keeps a repository from being updated or published.
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
        return "Free space on the disk of data_dir, or use a larger one. The daemon then retries.";
    }
    match error {
        RepositoryError::UnknownHost { .. } => {
            "Add the host to [upstreams] in the daemon's configuration."
        }
        RepositoryError::OtherSpelling { .. } => "Write the name in lower case.",
        RepositoryError::NestedInGit { .. } => "Only the last part of a name may end with .git.",
        RepositoryError::Mirror(error) => match **error {
            MirrorError::NotFound { .. } => {
                "Check the spelling; a private repository needs credentials in the daemon's \
                 configuration, and an organisation is not a repository."
            }
            MirrorError::Moved { .. } => "Use the name that the repository has upstream now.",
            MirrorError::Redirected { .. } => {
                "Write the URL that upstream redirects to into [upstreams] of the daemon's \
                 configuration."
            }
            MirrorError::Denied { .. } => {
                "Configure credentials for the daemon that may read the repository."
            }
            MirrorError::Unreachable { .. }
            | MirrorError::TimedOut { .. }
            | MirrorError::Upstream { .. }
            | MirrorError::BadHead { .. }
            | MirrorError::LeftBehind { .. } => "The daemon retries by itself.",
            MirrorError::Shallow { .. } => {
                "Run git fetch --unshallow in the upstream repository. The daemon retries by \
                 itself."
            }
            MirrorError::Git(_) | MirrorError::Io { .. } => "See the daemon's log.",
        },
        RepositoryError::Publish(error) => match **error {
            PublishError::RepositoryEmpty => "Push a commit first.",
            PublishError::Stopping
            | PublishError::Raced
            | PublishError::Behind
            | PublishError::LeaseLost => "Retry in a moment.",
            PublishError::BrokenRef { .. }
            | PublishError::Git(_)
            | PublishError::RefusedTree(_)
            | PublishError::TreeTooLarge(_)
            | PublishError::Unusable { .. }
            | PublishError::Store(_)
            | PublishError::Format(_)
            | PublishError::Io { .. }
            | PublishError::BadOutput { .. } => "See the daemon's log.",
        },
        RepositoryError::Store(error) => store_advice(error),
        RepositoryError::CheckTimedOut
        | RepositoryError::Busy
        | RepositoryError::TooManyNew
        | RepositoryError::Forgotten
        | RepositoryError::Stopping => "Retry in a moment.",
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
            "Retry in a moment, or ask another replica."
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
        | StoreError::Copy(_) => "See the daemon's log.",
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
