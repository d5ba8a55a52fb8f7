//! The answers to errors of repositories: upstream, mirror and publish.

use axum::http::StatusCode;
use cachewfs_format::api::code;

use super::store::{store_advice, store_status};
use crate::mirror::{MirrorError, is_disk_full};
use crate::publish::PublishError;
use crate::repository::RepositoryError;

/// Returns the status and code for an error that keeps a repository from being updated or
/// published.
pub(in crate::http) fn repository_status(error: &RepositoryError) -> (StatusCode, &'static str) {
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
                (StatusCode::INTERNAL_SERVER_ERROR, code::MIRROR_FAILED)
            }
        },
        RepositoryError::Publish(error) => match **error {
            PublishError::RepositoryEmpty => (StatusCode::NOT_FOUND, code::REPOSITORY_EMPTY),
            PublishError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, code::STOPPING),
            PublishError::Raced | PublishError::Behind | PublishError::LeaseLost => {
                (StatusCode::SERVICE_UNAVAILABLE, code::RACED)
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
                (StatusCode::INTERNAL_SERVER_ERROR, code::PUBLISH_FAILED)
            }
        },
        RepositoryError::CheckTimedOut => (StatusCode::BAD_GATEWAY, code::UPSTREAM_FAILED),
        RepositoryError::Busy => (StatusCode::SERVICE_UNAVAILABLE, code::BUSY),
        RepositoryError::TooManyNew => (StatusCode::SERVICE_UNAVAILABLE, code::TOO_MANY_NEW),
        RepositoryError::Forgotten => (StatusCode::SERVICE_UNAVAILABLE, code::FORGOTTEN),
        RepositoryError::Store(error) => store_status(error),
        RepositoryError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, code::STOPPING),
    }
}

pub(super) fn repository_advice(error: &RepositoryError) -> &'static str {
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
