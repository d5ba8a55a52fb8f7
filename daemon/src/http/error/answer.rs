//! The status, the code and the next step of the answer to an error.

use axum::http::StatusCode;

/// The answer to an error, without the message.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct ErrorAnswer {
    pub(super) status: StatusCode,
    /// One of `cachewfs_format::api::code`.
    pub(in crate::http) code: &'static str,
    /// The next step for the reader of the message.
    pub(super) advice: &'static str,
}

impl ErrorAnswer {
    pub(super) fn new(status: StatusCode, code: &'static str, advice: &'static str) -> Self {
        Self {
            status,
            code,
            advice,
        }
    }

    pub(super) fn status_and_code(&self) -> (StatusCode, &'static str) {
        (self.status, self.code)
    }
}
