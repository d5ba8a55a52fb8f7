//! Why a connection to a daemon can't be made or used, in one sentence with the next step.
//!
//! The errors of the HTTP client repeat the URL, and name each of its layers. The cause is the last
//! error of the chain.

use std::error::Error;
use std::io;

use tokio_rustls::rustls::{CertificateError, Error as TlsError};

/// Why a connection to a daemon can't be made or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// The connection was refused or broke, or the name of the host is unknown.
    #[error("{0}")]
    Failed(String),
    /// Too much time passed until there was a connection or a whole answer.
    #[error("it took too long")]
    TimedOut,
    /// The daemon sends, but too slowly.
    #[error("the answer did not end within {seconds} s")]
    Slow {
        /// The limit, in seconds.
        seconds: u64,
    },
    /// The daemon sends nothing.
    #[error("nothing arrived for {seconds} s")]
    Silent {
        /// The length of the silence, in seconds.
        seconds: u64,
    },
    /// The daemon's certificate leads to no authority that this machine knows.
    #[error(
        "this machine doesn't know the authority that signed its TLS certificate: mount with \
         SSL_CERT_FILE=FILE in the environment, where FILE has the authority's certificate"
    )]
    UnknownAuthority,
    /// This machine has no certificates of authorities.
    #[error(
        "this machine has no certificate authorities to check its TLS certificate with: install \
         the package ca-certificates, or mount with SSL_CERT_FILE=FILE in the environment"
    )]
    NoAuthorities,
    /// The daemon's certificate is expired, is for another host, or is wrong in another way.
    #[error("its TLS certificate is refused: {0}")]
    Certificate(CertificateError),
    /// The answer to a TLS handshake is none.
    #[error("this port doesn't speak TLS: try http:// instead of https://")]
    NotTls,
    /// The TLS connection failed in another way.
    #[error("TLS failed: {0}")]
    Tls(TlsError),
    /// The answer to an HTTP request is none.
    #[error("this port doesn't speak HTTP: try https:// instead of http://")]
    NotHttp,
}

impl From<reqwest::Error> for ConnectionError {
    fn from(error: reqwest::Error) -> Self {
        let causes: Vec<_> = std::iter::successors(Some(&error as &dyn Error), cause).collect();
        let tls = causes.iter().find_map(|cause| cause.downcast_ref());
        let http = causes.iter().find_map(|cause| cause.downcast_ref());
        match (tls, http) {
            (Some(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)), _) => {
                if has_authorities() {
                    Self::UnknownAuthority
                } else {
                    Self::NoAuthorities
                }
            }
            (Some(TlsError::InvalidCertificate(reason)), _) => Self::Certificate(reason.clone()),
            (Some(TlsError::InvalidMessage(_)), _) => Self::NotTls,
            (Some(error), _) => Self::Tls(error.clone()),
            (None, Some(error)) if hyper::Error::is_parse(error) => Self::NotHttp,
            (None, _) if error.is_timeout() => Self::TimedOut,
            (None, _) => Self::Failed(causes.last().map_or_else(String::new, ToString::to_string)),
        }
    }
}

/// Returns the cause of an error. The one of an I/O error may be the error inside it, which
/// [`Error::source`] passes over.
fn cause<'a>(error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let error: &'a (dyn Error + 'static) = *error;
    let inside = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
        .map(|error| error as &(dyn Error + 'static));
    inside.or_else(|| error.source())
}

/// Returns whether this machine has certificates of authorities.
fn has_authorities() -> bool {
    reqwest::Client::builder().build().is_ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Asks a server that sends `answer` to each client. Returns the text of the error.
    async fn ask(scheme: &str, answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://{}/path", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let len = stream.read(&mut [0; 4096]).unwrap();
                assert!(len > 0);
                stream.write_all(answer).unwrap();
            }
        });
        let error = reqwest::get(url).await.unwrap_err();
        ConnectionError::from(error).to_string()
    }

    #[tokio::test]
    async fn the_text_is_the_cause_alone() {
        let http = ask("https", b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        assert!(http.contains("try http://"), "{http}");
        // The alert with which a TLS server answers a request in plain HTTP: decode error.
        let tls = ask("http", b"\x15\x03\x03\x00\x02\x02\x32").await;
        assert!(tls.contains("try https://"), "{tls}");
        let alert = ask("https", b"\x15\x03\x03\x00\x02\x02\x28").await;
        assert!(alert.starts_with("TLS failed: "), "{alert}");

        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let refused = reqwest::get(format!("http://{}", free.unwrap())).await;
        let refused = ConnectionError::from(refused.unwrap_err()).to_string();
        assert_eq!(refused, "Connection refused (os error 111)");
    }
}
