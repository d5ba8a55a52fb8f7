//! The answers to errors of repositories: upstream, mirror and publish.

use axum::http::StatusCode;
use cachewfs_format::api::code;

use super::answer::ErrorAnswer;
use super::store::store_answer;
use crate::mirror::{MirrorError, is_disk_full};
use crate::publish::PublishError;
use crate::repository::RepositoryError;

const RETRY: &str = "Retry in a moment.";
const RETRIED: &str = "The daemon retries by itself.";
const SEE_LOG: &str = "See the daemon's log.";

/// Returns the answer to an error that keeps a repository from being updated or published.
pub(in crate::http) fn repository_answer(error: &RepositoryError) -> ErrorAnswer {
    if is_disk_full(error) {
        return ErrorAnswer::new(
            StatusCode::INSUFFICIENT_STORAGE,
            code::DISK_FULL,
            "Free space on the disk of data_dir, or use a larger one. The daemon then retries.",
        );
    }
    let (status, code, advice) = match error {
        RepositoryError::UnknownHost { .. } => (
            StatusCode::NOT_FOUND,
            code::UNKNOWN_HOST,
            "Add the host to [upstreams] in the daemon's configuration.",
        ),
        RepositoryError::NestedInGit { .. } => (
            StatusCode::BAD_REQUEST,
            code::BAD_REPO_NAME,
            "Only the last part of a name may end with .git.",
        ),
        RepositoryError::OtherSpelling { .. } => (
            StatusCode::BAD_REQUEST,
            code::BAD_REPO_NAME,
            "Write the name in lower case.",
        ),
        RepositoryError::Mirror(error) => return mirror_answer(error),
        RepositoryError::Publish(error) => return publish_answer(error),
        RepositoryError::Store(error) => return store_answer(error),
        RepositoryError::CheckTimedOut => (StatusCode::BAD_GATEWAY, code::UPSTREAM_FAILED, RETRY),
        RepositoryError::Busy => (StatusCode::SERVICE_UNAVAILABLE, code::BUSY, RETRY),
        RepositoryError::TooManyNew => (StatusCode::SERVICE_UNAVAILABLE, code::TOO_MANY_NEW, RETRY),
        RepositoryError::Forgotten => (StatusCode::SERVICE_UNAVAILABLE, code::FORGOTTEN, RETRY),
        RepositoryError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, code::STOPPING, RETRY),
    };
    ErrorAnswer::new(status, code, advice)
}

fn mirror_answer(error: &MirrorError) -> ErrorAnswer {
    let (status, code, advice) = match error {
        MirrorError::NotFound { .. } => (
            StatusCode::NOT_FOUND,
            code::UPSTREAM_NOT_FOUND,
            "Check the spelling; a private repository needs credentials in the daemon's \
             configuration, and an organisation is not a repository.",
        ),
        MirrorError::Moved { .. } => (
            StatusCode::NOT_FOUND,
            code::UPSTREAM_MOVED,
            "Use the name that the repository has upstream now.",
        ),
        MirrorError::Redirected { .. } => (
            StatusCode::BAD_GATEWAY,
            code::UPSTREAM_REDIRECTS,
            "Write the URL that upstream redirects to into [upstreams] of the daemon's \
             configuration.",
        ),
        MirrorError::Denied { .. } => (
            StatusCode::FORBIDDEN,
            code::UPSTREAM_DENIED,
            "Configure credentials for the daemon that may read the repository.",
        ),
        MirrorError::Unreachable { .. } => {
            (StatusCode::BAD_GATEWAY, code::UPSTREAM_UNREACHABLE, RETRIED)
        }
        MirrorError::TimedOut { .. } => {
            (StatusCode::GATEWAY_TIMEOUT, code::UPSTREAM_TIMEOUT, RETRIED)
        }
        MirrorError::Upstream { .. }
        | MirrorError::BadHead { .. }
        | MirrorError::LeftBehind { .. } => {
            (StatusCode::BAD_GATEWAY, code::UPSTREAM_FAILED, RETRIED)
        }
        MirrorError::Shallow { .. } => (
            StatusCode::BAD_GATEWAY,
            code::UPSTREAM_SHALLOW,
            "Run git fetch --unshallow in the upstream repository. The daemon retries by itself.",
        ),
        MirrorError::Git(_) | MirrorError::Io { .. } => (
            StatusCode::INTERNAL_SERVER_ERROR,
            code::MIRROR_FAILED,
            SEE_LOG,
        ),
    };
    ErrorAnswer::new(status, code, advice)
}

fn publish_answer(error: &PublishError) -> ErrorAnswer {
    let (status, code, advice) = match error {
        PublishError::RepositoryEmpty => (
            StatusCode::NOT_FOUND,
            code::REPOSITORY_EMPTY,
            "Push a commit first.",
        ),
        PublishError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, code::STOPPING, RETRY),
        PublishError::Raced | PublishError::Behind | PublishError::LeaseLost => {
            (StatusCode::SERVICE_UNAVAILABLE, code::RACED, RETRY)
        }
        PublishError::BrokenRef { .. }
        | PublishError::Git(_)
        | PublishError::RefusedTree(_)
        | PublishError::TreeTooLarge(_)
        | PublishError::Unusable { .. }
        | PublishError::Store(_)
        | PublishError::Format(_)
        | PublishError::Io { .. }
        | PublishError::BadOutput { .. } => (
            StatusCode::INTERNAL_SERVER_ERROR,
            code::PUBLISH_FAILED,
            SEE_LOG,
        ),
    };
    ErrorAnswer::new(status, code, advice)
}
