//! TLS with the configured certificate and key, which are read again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tracing::debug;

use super::connection::Connection;
use crate::base::Reloaded;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The `[tls]` section. Without it, the daemon serves plain HTTP. Both files are read again when
/// they change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// A PEM file with the server's certificate, followed by the intermediate certificates.
    pub certificate: PathBuf,
    /// A PEM file with the private key of the certificate.
    pub key: PathBuf,
}

/// The reason why the `[tls]` section can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or has no certificate or key in it.
    #[error("can't use {path}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: pem::Error,
    },
    /// Certificate and key don't fit together.
    #[error("can't use the certificate {certificate} with its key")]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
}

/// The TLS side of connections; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Tls(Arc<Reloaded<ServerConfig>>);

impl Tls {
    pub(crate) fn open(config: &TlsConfig) -> Result<Self, TlsError> {
        let files = vec![config.certificate.clone(), config.key.clone()];
        let config = config.clone();
        let read = move || read(&config.certificate, &config.key);
        Ok(Self(Arc::new(Reloaded::open(files, read)?)))
    }

    /// Runs the TLS handshake. Returns `None` if it fails or takes too long.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<Connection> {
        let acceptor = TlsAcceptor::from(self.0.current());
        match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Some(Connection::Tls(Box::new(stream))),
            Ok(Err(error)) => {
                debug!(%error, "A TLS handshake failed");
                None
            }
            Err(_) => {
                debug!("A TLS handshake timed out");
                None
            }
        }
    }
}

fn read(certificate: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let unusable = |path: &Path| {
        let path = path.to_owned();
        |source| TlsError::Pem { path, source }
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(unusable(certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(unusable(key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let certificate = certificate.to_owned();
    let mut config = config.map_err(|source| TlsError::Pair {
        certificate,
        source,
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
