//! Downloads LFS objects from the URLs that upstream's LFS server names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, header};
use reqwest::{Client, Response, Url};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tracing::debug;

use super::batch::{Action, Batch};
use super::guard::Guard;
use super::{LfsFetchError, LfsObject};
use crate::base::chain;
use crate::http_client::http_client;
use crate::mirror::Login;
use crate::mirror::redirect::{MAX_REDIRECTS, is_redirect};

/// How long connecting to a server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may send nothing before a download fails.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// At most this many times an object is requested.
const MAX_TRIES: u32 = 3;
/// How long before the second try. The backoff doubles with each further try.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);

/// The HTTP client and the rules that all downloads share.
#[derive(Debug)]
pub(super) struct Downloads {
    client: Client,
    guard: Guard,
    /// The URL of the LFS server. Only this server gets the daemon's credentials.
    server: Url,
    login: Option<Login>,
}

/// Why one try failed. Only the log has it.
#[derive(Debug, thiserror::Error)]
enum DownloadError {
    #[error("the daemon may not request this URL")]
    Refused,
    #[error("too many redirects, or a redirect from https to http or to no valid URL")]
    Redirects,
    #[error("the server answered {0}")]
    Status(reqwest::StatusCode),
    #[error("the request failed")]
    Request(#[source] reqwest::Error),
    #[error("the object is longer than its LFS pointer says")]
    TooLong,
    #[error("can't write the object")]
    Write(#[source] std::io::Error),
}

impl DownloadError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Request(_) => true,
            Self::Status(status) => status.is_server_error() || status.as_u16() == 429,
            Self::Refused | Self::Redirects | Self::TooLong | Self::Write(_) => false,
        }
    }
}

impl Downloads {
    /// Prepares the downloads of the objects in `batch`, the response of the server at `url`.
    pub(super) async fn new(
        batch: &Batch,
        (url, login): (&Url, Option<Login>),
    ) -> Result<Self, LfsFetchError> {
        Self::with_guard(Guard::of(url, batch.server).await, (url, login))
    }

    fn with_guard(
        guard: Guard,
        (url, login): (&Url, Option<Login>),
    ) -> Result<Self, LfsFetchError> {
        let client = http_client(|builder| {
            builder
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(IDLE_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .dns_resolver(guard.clone())
        });
        let client = client.map_err(LfsFetchError::Client)?;
        Ok(Self {
            client,
            guard,
            server: url.clone(),
            login,
        })
    }

    /// Downloads an object to `path`. Does nothing if upstream doesn't have it (`action` is
    /// `None`).
    pub(super) async fn fetch(
        &self,
        action: Option<&Action>,
        object: &LfsObject,
        path: PathBuf,
    ) -> Result<(), LfsFetchError> {
        let Some(action) = action else { return Ok(()) };
        let mut tries = 0;
        loop {
            let error = match self.try_to_fetch(action, object.size, &path).await {
                Ok(()) => return Ok(()),
                Err(DownloadError::Write(source)) => {
                    return Err(LfsFetchError::Io { path, source });
                }
                Err(error) => error,
            };
            let oid = &object.oid;
            // Only the host is logged: the query may contain a signature.
            let host = Url::parse(&action.href).ok();
            let host = host.as_ref().and_then(Url::host_str).unwrap_or_default();
            debug!(
                oid,
                host,
                error = chain(&error),
                "Downloading an LFS object failed"
            );
            tries += 1;
            if tries == MAX_TRIES || !error.is_transient() {
                return Err(LfsFetchError::Download { oid: oid.clone() });
            }
            tokio::time::sleep(FIRST_BACKOFF * 2_u32.pow(tries - 1)).await;
        }
    }

    async fn try_to_fetch(
        &self,
        action: &Action,
        size: u64,
        path: &Path,
    ) -> Result<(), DownloadError> {
        let mut answer = self.ask(action).await?;
        let mut file = File::create(path).await.map_err(DownloadError::Write)?;
        let mut left = size;
        let failed = |error: reqwest::Error| DownloadError::Request(error.without_url());
        while let Some(bytes) = answer.chunk().await.map_err(failed)? {
            let len = bytes.len() as u64;
            left = left.checked_sub(len).ok_or(DownloadError::TooLong)?;
            file.write_all(&bytes).await.map_err(DownloadError::Write)?;
        }
        file.flush().await.map_err(DownloadError::Write)
    }

    /// Requests an object, and follows redirects: LFS servers redirect clients to their storage.
    async fn ask(&self, action: &Action) -> Result<Response, DownloadError> {
        // Four rules keep the daemon from being used against its own network. Every URL, also that
        // of a redirect, must pass the guard. The login goes only to the LFS server itself. The
        // headers of the action are dropped when a redirect leaves the origin. https never becomes
        // http.
        let url = self.server.join(&action.href);
        let mut url = url.map_err(|_| DownloadError::Refused)?;
        let mut headers = action.headers();
        for _ in 0..=MAX_REDIRECTS {
            if !self.guard.allows(&url).await {
                return Err(DownloadError::Refused);
            }
            let mut request = self.client.get(url.clone()).headers(headers.clone());
            // An action with an `Authorization` of its own doesn't need the login.
            let has_no_login = !headers.contains_key(header::AUTHORIZATION);
            if let Some(login) = &self.login
                && has_no_login
                && url.origin() == self.server.origin()
            {
                request = request.basic_auth(&login.user, Some(&login.secret));
            }
            let answer = request.send().await;
            let answer = answer.map_err(|error| DownloadError::Request(error.without_url()))?;
            match answer.status() {
                status if status.is_success() => return Ok(answer),
                status if is_redirect(status) => {}
                status => return Err(DownloadError::Status(status)),
            }
            let location = answer.headers().get(header::LOCATION);
            let to = location.and_then(|location| url.join(location.to_str().ok()?).ok());
            let to = to.filter(|to| url.scheme() == "http" || to.scheme() == "https");
            let to = to.ok_or(DownloadError::Redirects)?;
            if to.origin() != url.origin() {
                headers = HeaderMap::new();
            }
            url = to;
        }
        Err(DownloadError::Redirects)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::extract::Request;
    use axum::response::IntoResponse as _;

    use super::*;
    use crate::mirror::lfs::guard::Network;

    /// Starts a server that has `/object`, and redirects all other paths there under another host
    /// name.
    async fn start() -> (Url, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&seen);
        let answer = async move |request: Request| {
            counter.fetch_add(1, Ordering::Relaxed);
            let shown = request.headers().get(header::AUTHORIZATION).is_some();
            if request.uri().path() == "/object" {
                return (if shown { "shown" } else { "plain" }).into_response();
            }
            let to = format!("http://localhost:{port}/object");
            (reqwest::StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
        };
        let router = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (
            Url::parse(&format!("http://127.0.0.1:{port}/repo.git")).unwrap(),
            seen,
        )
    }

    async fn fetch(server: &Url, network: Network, href: &str) -> Result<String, LfsFetchError> {
        let login = Login {
            user: "me".to_owned(),
            secret: "s3cret".to_owned(),
        };
        let downloads = Downloads::with_guard(Guard::new(network), (server, Some(login)))?;
        let action: Action = serde_json::from_value(serde_json::json!({ "href": href })).unwrap();
        let object = LfsObject {
            oid: "x".to_owned(),
            size: 5,
            path: "x".to_owned(),
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        downloads
            .fetch(Some(&action), &object, path.clone())
            .await?;
        Ok(std::fs::read_to_string(path).unwrap())
    }

    #[tokio::test]
    async fn a_server_elsewhere_cannot_send_the_daemon_to_this_machine() {
        let (server, seen) = start().await;
        let port = server.port().unwrap();

        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0"] {
            let href = format!("http://{host}:{port}/object");
            let error = fetch(&server, Network::Private, &href).await.unwrap_err();
            assert!(matches!(error, LfsFetchError::Download { .. }), "{error:?}");
        }

        assert_eq!(seen.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_redirect_to_another_origin_gets_no_credentials() {
        let (server, _) = start().await;

        let own = fetch(&server, Network::Loopback, "/object").await.unwrap();
        let elsewhere = fetch(&server, Network::Loopback, "/other").await.unwrap();

        assert_eq!((&*own, &*elsewhere), ("shown", "plain"));
    }
}
