//! Why bytes can't be had.

use std::time::Duration;

use super::DirectError;

/// Why bytes can't be had from a daemon.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// No daemon answered.
    #[error("can't reach {url}")]
    Unreachable {
        /// The URL asked.
        url: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// The daemon says that something is not there, or never will be.
    #[error("{message} ({code})")]
    Refused {
        /// The stable code of `cachewfs_format::api::code`.
        code: String,
        /// The daemon's sentence.
        message: String,
    },
    /// The daemon says to come back later.
    #[error("{message} ({code})")]
    NotYet {
        /// The stable code.
        code: String,
        /// The daemon's sentence.
        message: String,
        /// How long to wait before asking again.
        retry_after: Duration,
    },
    /// The daemon failed, or upstream did: the next try may do.
    #[error("{message} ({code})")]
    Failed {
        /// The stable code.
        code: String,
        /// The daemon's sentence.
        message: String,
    },
    /// The daemon answered with a status that makes no sense here, without a sentence.
    #[error("{url} answered {status}")]
    Status {
        /// The URL asked.
        url: String,
        /// The status.
        status: u16,
    },
    /// An answer ended before all bytes had come.
    #[error("{url} ended after {received} of {expected} bytes")]
    Cut {
        /// The URL asked.
        url: String,
        /// Bytes that came.
        received: u64,
        /// Bytes that were asked for.
        expected: u64,
    },
    /// An answer is not what the API answers.
    #[error("what {url} answered makes no sense")]
    NotJson {
        /// The URL asked.
        url: String,
        /// Why it can't be parsed.
        source: serde_json::Error,
    },
    /// An answer is longer than its request allows.
    #[error("{url} sent more than {max} bytes")]
    TooLong {
        /// The URL asked.
        url: String,
        /// Bytes that were asked for, or that such an answer may have.
        max: u64,
    },
    /// The bytes are not those that were asked for.
    #[error("what {url} sent is broken")]
    Broken {
        /// The URL asked.
        url: String,
        /// What is wrong.
        source: cachewfs_format::Error,
    },
    /// They can't be read where the daemon points; it can still be asked for them itself.
    #[error("can't read where the daemon points")]
    Direct(#[source] DirectError),
    /// Time ran out.
    #[error("no answer within {seconds} s")]
    TimedOut {
        /// The deadline, in seconds.
        seconds: u64,
    },
    /// The mount is being ended.
    #[error("the mount is ending")]
    Ending,
}

impl FetchError {
    /// Whether asking again, or asking another daemon, can help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            // Of broken bytes, another daemon, or the same one later, may send the right ones.
            Self::Unreachable { .. }
            | Self::NotYet { .. }
            | Self::Failed { .. }
            | Self::Cut { .. }
            | Self::TooLong { .. }
            | Self::NotJson { .. }
            | Self::Broken { .. }
            | Self::Direct(_) => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429 || *status == 408,
            Self::Refused { .. } | Self::TimedOut { .. } | Self::Ending => false,
        }
    }
}
