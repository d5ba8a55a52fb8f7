//! The answers to errors of LFS archives.

use axum::http::StatusCode;
use cachewfs_format::api::code;

use crate::mirror::is_disk_full;
use crate::publish::{LfsError, PublishError};

/// Returns the status and code for an error of an LFS archive.
pub(in crate::http) fn lfs_status(error: &LfsError) -> (StatusCode, &'static str) {
    if is_disk_full(error) {
        return (StatusCode::INSUFFICIENT_STORAGE, code::DISK_FULL);
    }
    match error {
        LfsError::Fetch { .. } | LfsError::Missing { .. } | LfsError::WrongContent { .. } => {
            (StatusCode::BAD_GATEWAY, code::LFS_FAILED)
        }
        LfsError::Publish(PublishError::Stopping) => {
            (StatusCode::SERVICE_UNAVAILABLE, code::STOPPING)
        }
        LfsError::Publish(_) => (StatusCode::INTERNAL_SERVER_ERROR, code::PUBLISH_FAILED),
    }
}

/// Returns the next step for the reader of the message.
pub(super) fn lfs_advice(error: &LfsError) -> &'static str {
    match error {
        LfsError::Fetch { .. } | LfsError::Missing { .. } | LfsError::WrongContent { .. } => {
            "The daemon tries again by itself; git lfs pull in a clone asks upstream directly."
        }
        LfsError::Publish(_) => "Look at the daemon's log.",
    }
}
