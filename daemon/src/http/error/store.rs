//! The answers to errors of the store.

use axum::http::StatusCode;
use cachewfs_format::api::code;

use super::answer::ErrorAnswer;
use crate::store::StoreError;

/// Returns the answer to an error of the store.
pub(in crate::http) fn store_answer(error: &StoreError) -> ErrorAnswer {
    match error {
        StoreError::Tier(error) if error.is_outage() => ErrorAnswer::new(
            StatusCode::SERVICE_UNAVAILABLE,
            code::STORE_UNAVAILABLE,
            "Retry in a moment, or ask another replica.",
        ),
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
        | StoreError::Copy(_) => ErrorAnswer::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            code::STORE_FAILED,
            "See the daemon's log.",
        ),
    }
}
