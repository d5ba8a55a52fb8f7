//! Reasons why the daemon can't start.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::auth::AuthError;
use crate::base::{ConfigError, LockError};
use crate::listener::TlsError;
use crate::mirror::{CredentialError, GitVersionError};

/// The reason why the daemon can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration can't be used.
    #[error("the configuration can't be used")]
    Config(#[from] ConfigError),
    /// A directory or file below the data directory can't be created, emptied or read.
    #[error("can't prepare {path}")]
    Prepare {
        /// The directory or file.
        path: PathBuf,
        /// The error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The data directory can't be created or written.
    #[error("data_dir = {path:?} can't be used")]
    DataDir {
        /// The data directory.
        path: PathBuf,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// Another daemon has locked a directory that only one daemon can use.
    #[error("another daemon uses {directory}")]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The files in `[auth]` can't be used.
    #[error("can't load the tokens and the policy of [auth]")]
    Auth(#[from] AuthError),
    /// The files in `[tls]` can't be used.
    #[error("can't load the certificate and the key of [tls]")]
    Tls(#[from] TlsError),
    /// The credentials in `[upstream_auth]` can't be used.
    #[error("can't load the credentials of [upstream_auth]")]
    Credentials(#[from] CredentialError),
    /// The installed git can't be used.
    #[error("can't use the installed git")]
    Git(#[from] GitVersionError),
    /// The client for HTTP upstreams can't be created.
    #[error("can't create the HTTP client for upstreams")]
    HttpClient(#[source] reqwest::Error),
    /// The store can't be opened or listed.
    #[error("can't use the store {place}")]
    Store {
        /// The directory, or the bucket and its endpoint.
        place: String,
        /// The error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address can't be listened on.
    #[error("can't listen on {address}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The error.
        source: std::io::Error,
    },
}

/// A problem that would stop a start by the present user on this machine, but perhaps not where the
/// daemon runs.
#[derive(Debug, thiserror::Error)]
pub enum CheckWarning {
    /// Credentials for an upstream are missing.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// A directory can't be written, or credentials for the bucket are missing.
    #[error(transparent)]
    Store(#[from] StartError),
}

impl From<LockError> for StartError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Create { path, source } => Self::Prepare {
                path,
                source: source.into(),
            },
            LockError::InUse { directory } => Self::InUse { directory },
        }
    }
}
