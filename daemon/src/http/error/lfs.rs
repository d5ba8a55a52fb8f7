//! The answers to errors of LFS archives.

use axum::http::StatusCode;
use cachewfs_format::api::code;

use super::answer::ErrorAnswer;
use crate::mirror::is_disk_full;
use crate::publish::{LfsError, PublishError};

/// Returns the answer to an error of an LFS archive.
pub(in crate::http) fn lfs_answer(error: &LfsError) -> ErrorAnswer {
    let mut answer = match error {
        LfsError::Fetch { .. } | LfsError::Missing { .. } | LfsError::WrongContent { .. } => {
            ErrorAnswer::new(
                StatusCode::BAD_GATEWAY,
                code::LFS_FAILED,
                "The daemon tries again by itself; git lfs pull in a clone asks upstream directly.",
            )
        }
        LfsError::Publish(PublishError::Stopping) => ErrorAnswer::new(
            StatusCode::SERVICE_UNAVAILABLE,
            code::STOPPING,
            "Look at the daemon's log.",
        ),
        LfsError::Publish(_) => ErrorAnswer::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            code::PUBLISH_FAILED,
            "Look at the daemon's log.",
        ),
    };
    if is_disk_full(error) {
        (answer.status, answer.code) = (StatusCode::INSUFFICIENT_STORAGE, code::DISK_FULL);
    }
    answer
}
