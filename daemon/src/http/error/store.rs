//! The answers to errors of the store.

use axum::http::StatusCode;
use cachewfs_format::api::code;

use crate::store::StoreError;

/// Returns the status and code for an error of the store.
pub(in crate::http) fn store_status(error: &StoreError) -> (StatusCode, &'static str) {
    match error {
        StoreError::Tier(error) if error.is_outage() => {
            (StatusCode::SERVICE_UNAVAILABLE, code::STORE_UNAVAILABLE)
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
        | StoreError::Copy(_) => (StatusCode::INTERNAL_SERVER_ERROR, code::STORE_FAILED),
    }
}

pub(super) fn store_advice(error: &StoreError) -> &'static str {
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
