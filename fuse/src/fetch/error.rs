//! The errors of requests for bytes.

use std::time::Duration;

use super::connection::ConnectionError;

/// Why a request for bytes fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// No connection could be made, or the connection broke.
    #[error("can't reach the daemon {daemon}")]
    Unreachable {
        /// The URL of the daemon.
        daemon: String,
        /// The reason.
        source: ConnectionError,
    },
    /// The daemon refuses the request, and would refuse it again.
    #[error("{message} ({code})")]
    Refused {
        /// The stable code of `cachewfs_format::api::code`.
        code: String,
        /// The daemon's message.
        message: String,
    },
    /// The daemon asks to retry later, for example while it makes a first snapshot.
    #[error("{message} ({code})")]
    NotYet {
        /// The stable code.
        code: String,
        /// The daemon's message.
        message: String,
        /// How long to wait before the retry.
        retry_after: Duration,
    },
    /// The daemon or upstream failed. A retry may succeed.
    #[error("{message} ({code})")]
    Failed {
        /// The stable code.
        code: String,
        /// The daemon's message.
        message: String,
    },
    /// The answer has an unexpected status and no error body of the API.
    #[error("{url} answered {status}")]
    Status {
        /// The URL of the request.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// An answer ended before all requested bytes had arrived.
    #[error("{url} sent only {received} of {expected} bytes")]
    Cut {
        /// The URL of the request.
        url: String,
        /// Bytes that arrived.
        received: u64,
        /// Bytes that were requested.
        expected: u64,
    },
    /// An answer isn't the JSON that the API defines.
    #[error("{url} sent JSON that can't be parsed")]
    NotJson {
        /// The URL of the request.
        url: String,
        /// The error of the parser.
        source: serde_json::Error,
    },
    /// An answer is longer than its request allows.
    #[error("{url} sent more than {max} bytes")]
    TooLong {
        /// The URL of the request.
        url: String,
        /// Bytes that were requested, or the limit of such an answer.
        max: u64,
    },
    /// The bytes don't have the expected digest or form.
    #[error("{url} sent wrong bytes")]
    Broken {
        /// The URL of the request.
        url: String,
        /// The failed check.
        source: cachewfs_format::Error,
    },
    /// A direct read failed. The daemon itself can still be asked for the bytes.
    #[error("a direct read failed")]
    Direct(#[source] DirectError),
    /// The deadline passed before all bytes had arrived.
    #[error("the bytes did not arrive within {seconds} s")]
    TimedOut {
        /// The deadline, in seconds.
        seconds: u64,
    },
    /// Nothing arrived from any daemon for a while.
    #[error("no daemon sent anything for {seconds} s")]
    Silent {
        /// The length of the silence, in seconds.
        seconds: u64,
    },
    /// The mount is being unmounted.
    #[error("the mount is being unmounted")]
    Ending,
}

impl FetchError {
    /// Returns whether a retry, or a request to another daemon, can succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            // Broken bytes count as transient: another daemon, or a retry, may send the right ones.
            Self::Unreachable { .. }
            | Self::NotYet { .. }
            | Self::Failed { .. }
            | Self::Cut { .. }
            | Self::TooLong { .. }
            | Self::NotJson { .. }
            | Self::Broken { .. }
            | Self::Direct(_) => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429 || *status == 408,
            Self::Refused { .. } | Self::TimedOut { .. } | Self::Silent { .. } | Self::Ending => {
                false
            }
        }
    }

    /// Returns whether no daemon was reached.
    pub(crate) fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Silent { .. } => true,
            // A load balancer answers so if it reaches no daemon. A daemon's own answer has a body.
            Self::Status { status, .. } => (502..=504).contains(status),
            Self::Refused { .. }
            | Self::NotYet { .. }
            | Self::Failed { .. }
            | Self::Cut { .. }
            | Self::NotJson { .. }
            | Self::TooLong { .. }
            | Self::Broken { .. }
            | Self::Direct(_)
            | Self::Ending => false,
        }
    }
}

/// Why a direct read fails. It never contains the URL, which is a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectError {
    /// The daemon's redirect isn't safe to follow, or isn't valid.
    #[error("the daemon's redirect is refused: {reason}")]
    Target {
        /// The reason for the refusal.
        reason: &'static str,
    },
    /// No connection could be made, or the connection broke.
    #[error("the connection to {origin} failed")]
    Unreachable {
        /// Scheme, host and port.
        origin: String,
        /// The error of the HTTP client, without the URL.
        source: reqwest::Error,
    },
    /// The bucket answers with another status than 206.
    #[error("{origin} answered {status}")]
    Status {
        /// Scheme, host and port.
        origin: String,
        /// The HTTP status.
        status: u16,
    },
    /// The bucket sends another range.
    #[error("{origin} sent another range than the requested one")]
    Range {
        /// Scheme, host and port.
        origin: String,
    },
    /// The body is shorter or longer than the range.
    #[error("{origin} sent another number of bytes than requested")]
    Length {
        /// Scheme, host and port.
        origin: String,
    },
    /// The answer takes too long.
    #[error("{origin} took too long to answer")]
    Slow {
        /// Scheme, host and port.
        origin: String,
    },
}
