//! Archives from daemons over HTTP.

use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::api::{self, ErrorBody, RefreshAnswer, RepoList};
use cachewfs_format::{ArchiveKind, RepoName, SnapshotId};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::header::{
    AUTHORIZATION, CONTENT_LOCATION, CONTENT_RANGE, ETAG, IF_NONE_MATCH, RANGE, RETRY_AFTER,
};
use reqwest::{Response, StatusCode};

use super::source::BoxFuture;
use super::{BodyStream, DaemonToken, FetchError, RangeRequest, Source, Tail, TailAnswer};
use crate::traffic::{Meter, Purpose, Traffic};

/// How long a connection may take, and how long a daemon may stay silent in the middle of a body.
/// Less than the read deadline, so that another daemon still gets its turn.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);
/// A refresh waits for `git fetch` from upstream.
const REFRESH_TIMEOUT: Duration = Duration::from_mins(10);

/// One or more daemons, each tried in turn.
#[derive(Debug)]
pub(crate) struct HttpSource {
    client: reqwest::Client,
    /// Without a slash at the end.
    daemons: Vec<String>,
    token: Option<DaemonToken>,
    traffic: Arc<Traffic>,
}

impl HttpSource {
    /// Takes the base URLs of the daemons, and what they are shown.
    pub(crate) fn new(
        daemons: &[String],
        token: Option<DaemonToken>,
        traffic: Arc<Traffic>,
    ) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_TIMEOUT)
            .http1_only()
            .user_agent(concat!("cachewfs/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let daemons = daemons
            .iter()
            .map(|url| url.trim_end_matches('/').to_owned())
            .collect();
        Ok(Self {
            client,
            daemons,
            token,
            traffic,
        })
    }

    /// Sends a request to one daemon after the other, starting with number `first`, until one gives
    /// an answer that is worth having.
    async fn send(
        &self,
        first: usize,
        meter: &Meter,
        request: impl Fn(&reqwest::Client, &str) -> reqwest::RequestBuilder,
    ) -> Result<Response, FetchError> {
        let mut last = FetchError::Ending;
        for turn in 0..self.daemons.len() {
            let Some(daemon) = self.daemons.get((first + turn) % self.daemons.len()) else {
                break;
            };
            meter.count_request();
            let mut request = request(&self.client, daemon);
            if let Some(token) = &self.token {
                request = request.header(AUTHORIZATION, token.header());
            }
            let outcome = request.send().await;
            last = match outcome {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if response.status() == StatusCode::NOT_MODIFIED => {
                    return Ok(response);
                }
                Ok(response) => refusal(response).await,
                Err(source) => FetchError::Unreachable {
                    url: daemon.clone(),
                    source,
                },
            };
            if !last.is_transient() {
                break;
            }
        }
        Err(last)
    }
}

/// Turns an answer that is no success into an error.
async fn refusal(response: Response) -> FetchError {
    let status = response.status();
    let url = response.url().to_string();
    let retry_after = header(&response, RETRY_AFTER)
        .and_then(|seconds| seconds.parse().ok())
        .map(Duration::from_secs);
    let Ok(body) = response.json::<ErrorBody>().await else {
        return FetchError::Status {
            url,
            status: status.as_u16(),
        };
    };
    let (code, message) = (body.error.code, body.error.message);
    match retry_after {
        Some(retry_after) if status == StatusCode::SERVICE_UNAVAILABLE => FetchError::NotYet {
            code,
            message,
            retry_after,
        },
        _ if status.is_client_error() => FetchError::Refused { code, message },
        _ => FetchError::Status {
            url,
            status: status.as_u16(),
        },
    }
}

fn header(response: &Response, name: reqwest::header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// The total length in `Content-Range: bytes a-b/total`.
fn total_len(response: &Response) -> Option<u64> {
    header(response, CONTENT_RANGE)?
        .rsplit_once('/')?
        .1
        .parse()
        .ok()
}

/// The snapshot in `…/<snapshot>.tar.zst`.
fn snapshot_of(path: &str) -> Option<SnapshotId> {
    let name = path.rsplit_once('/')?.1.strip_suffix(".tar.zst")?;
    SnapshotId::parse(name).ok()
}

impl Source for HttpSource {
    fn tail<'a>(
        &'a self,
        repo: &'a RepoName,
        kind: ArchiveKind,
        len: u64,
        etag: Option<&'a str>,
    ) -> BoxFuture<'a, Result<TailAnswer, FetchError>> {
        Box::pin(async move {
            let path = api::stable_path(repo, kind);
            let purpose = if etag.is_some() {
                Purpose::Background
            } else {
                Purpose::Demand
            };
            let meter = self.traffic.meter(Some(repo), purpose);
            let response = self
                .send(0, &meter, |client, daemon| {
                    let request = client
                        .get(format!("{daemon}{path}"))
                        .header(RANGE, format!("bytes=-{len}"));
                    match etag {
                        Some(etag) => request.header(IF_NONE_MATCH, etag),
                        None => request,
                    }
                })
                .await?;
            if response.status() == StatusCode::NOT_MODIFIED {
                return Ok(TailAnswer::Unchanged);
            }
            let url = response.url().to_string();
            let status = response.status().as_u16();
            let place = header(&response, CONTENT_LOCATION).map(str::to_owned);
            let found = (
                total_len(&response),
                place,
                header(&response, ETAG).map(str::to_owned),
            );
            let (Some(archive_len), Some(place), Some(etag)) = found else {
                return Err(FetchError::Status { url, status });
            };
            let snapshot = snapshot_of(&place).ok_or_else(|| FetchError::Status {
                url: place.clone(),
                status,
            })?;
            let path = api::immutable_path(repo, kind, snapshot).into();
            let bytes = response
                .bytes()
                .await
                .map_err(|source| FetchError::Unreachable { url, source })?;
            meter.count_bytes(bytes.len());
            Ok(TailAnswer::Tail(Tail {
                bytes,
                archive_len,
                path,
                snapshot,
                etag,
            }))
        })
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<BodyStream, FetchError>> {
        Box::pin(async move {
            let RangeRequest {
                repo,
                path,
                range,
                purpose,
                attempt,
            } = request;
            let meter = self.traffic.meter(Some(&repo), purpose);
            let last_byte = range.end.saturating_sub(1);
            let response = self
                .send(attempt, &meter, |client, daemon| {
                    client
                        .get(format!("{daemon}{path}"))
                        .header(RANGE, format!("bytes={}-{last_byte}", range.start))
                })
                .await?;
            let url = response.url().to_string();
            if response.status() != StatusCode::PARTIAL_CONTENT {
                return Err(FetchError::Status {
                    url,
                    status: response.status().as_u16(),
                });
            }
            let expected = range.end.saturating_sub(range.start);
            let failed = url.clone();
            let pieces = response
                .bytes_stream()
                .map_err(move |source| FetchError::Unreachable {
                    url: failed.clone(),
                    source,
                })
                .inspect_ok(move |piece| meter.count_bytes(piece.len()));
            Ok(exactly(pieces.boxed(), expected, url))
        })
    }

    fn refresh<'a>(
        &'a self,
        repo: &'a RepoName,
    ) -> BoxFuture<'a, Result<RefreshAnswer, FetchError>> {
        Box::pin(async move {
            let path = api::refresh_path(repo);
            let meter = self.traffic.meter(Some(repo), Purpose::Demand);
            let response = self
                .send(0, &meter, |client, daemon| {
                    client
                        .post(format!("{daemon}{path}"))
                        .timeout(REFRESH_TIMEOUT)
                })
                .await?;
            let url = response.url().to_string();
            response
                .json()
                .await
                .map_err(|source| FetchError::Unreachable { url, source })
        })
    }

    fn hosts(&self) -> BoxFuture<'_, Result<Vec<String>, FetchError>> {
        Box::pin(async move {
            let meter = self.traffic.meter(None, Purpose::Demand);
            let response = self
                .send(0, &meter, |client, daemon| {
                    client.get(format!("{daemon}{}", api::REPOS_PATH))
                })
                .await?;
            let url = response.url().to_string();
            let list: Result<RepoList, _> = response.json().await;
            Ok(list
                .map_err(|source| FetchError::Unreachable { url, source })?
                .hosts)
        })
    }
}

/// Makes a body that ends early, or goes on too long, end with an error.
fn exactly(pieces: BodyStream, expected: u64, url: String) -> BodyStream {
    let ended = stream::once(std::future::ready(None));
    let mut got = 0_u64;
    pieces
        .map(Some)
        .chain(ended)
        .filter_map(move |piece| {
            let checked = match piece {
                Some(Ok(piece)) => {
                    got = got.saturating_add(piece.len() as u64);
                    let is_too_long = got > expected;
                    Some(if is_too_long {
                        Err(FetchError::Cut {
                            url: url.clone(),
                            got,
                            expected,
                        })
                    } else {
                        Ok(piece)
                    })
                }
                Some(Err(error)) => Some(Err(error)),
                None if got < expected => Some(Err(FetchError::Cut {
                    url: url.clone(),
                    got,
                    expected,
                })),
                None => None,
            };
            std::future::ready(checked)
        })
        .boxed()
}
