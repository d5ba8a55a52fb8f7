//! TLS: certificate and key of the configuration, read again when they change.

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
use crate::reloaded::Reloaded;

/// How long a client may take to agree on how to encrypt.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The `[tls]` section: without it, plain HTTP is served. Both files are read again when they change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// A PEM file: the server's certificate, then those that lead to what clients trust.
    pub certificate: PathBuf,
    /// A PEM file: the private key of the certificate.
    pub key: PathBuf,
}

/// Why `[tls]` can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or has nothing of what it should.
    #[error("{path} can't be used")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// Certificate and key can't be used together.
    #[error("{certificate} and its key can't be used")]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// How connections are encrypted; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Tls(Arc<Reloaded<ServerConfig>>);

impl Tls {
    pub(crate) fn open(config: &TlsConfig) -> Result<Self, TlsError> {
        let files = vec![config.certificate.clone(), config.key.clone()];
        let config = config.clone();
        let read = move || read(&config.certificate, &config.key);
        Ok(Self(Arc::new(Reloaded::open(files, read)?)))
    }

    /// Agrees with a client on how to encrypt; `None` if that fails, or takes too long.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<Connection> {
        let acceptor = TlsAcceptor::from(self.0.current());
        match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Some(Connection::Tls(Box::new(stream))),
            Ok(Err(error)) => {
                debug!(%error, "A client doesn't agree on TLS");
                None
            }
            Err(_) => {
                debug!("A client took too long to agree on TLS");
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
