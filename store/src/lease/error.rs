//! Errors of leases.

use crate::TierError;

/// Why a lease can't be used. The publish goes on without it.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeaseError {
    #[error("can't read or write the lease")]
    Tier(#[from] TierError),
    #[error("can't parse the lease")]
    Unreadable(#[from] serde_json::Error),
    #[error("the lease has the unknown version {version}")]
    UnknownVersion { version: u32 },
    #[error("the lease is invalid: {what}")]
    Invalid { what: &'static str },
    #[error("can't start a thread to renew the lease")]
    NoThread(#[source] std::io::Error),
}
