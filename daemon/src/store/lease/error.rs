//! Why a lease can't be used.

use crate::store::TierError;

/// Why a lease can't be used; what it is for goes on without.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeaseError {
    #[error("the lease can't be read or written")]
    Tier(#[from] TierError),
    #[error("the lease is not what a daemon writes")]
    Unreadable(#[from] serde_json::Error),
    #[error("the lease has version {version}, which is not known")]
    UnknownVersion { version: u32 },
    #[error("the lease says what it can't: {what}")]
    Strange { what: &'static str },
    #[error("there is no thread to renew the lease")]
    NoThread(#[source] std::io::Error),
}
