//! Reads the answers of a daemon: bodies of limited length, refusals and headers.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cachewfs_format::SnapshotId;
use cachewfs_format::api::ErrorBody;
use futures_util::{StreamExt as _, stream};
use reqwest::header::{CONTENT_RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::connection::ConnectionError;
use super::{BodyStream, FetchError};
use crate::awake;

/// How long a daemon may take to begin its answer.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);
/// At most this many bytes of the body of a refusal.
const MAX_REFUSAL_LEN: u64 = 64 << 10;

/// Reads a whole body of at most `max` bytes. The caller limits how long that takes.
pub(super) async fn whole_body(response: &mut Response, max: u64) -> Result<Bytes, FetchError> {
    let url = |response: &Response| response.url().to_string();
    let mut bytes = BytesMut::new();
    loop {
        let Ok(piece) = awake::timeout(SILENCE_TIMEOUT, response.chunk()).await else {
            return Err(silence(&daemon_of(response), SILENCE_TIMEOUT));
        };
        match piece {
            Ok(Some(piece)) if (bytes.len() + piece.len()) as u64 > max => {
                let url = url(response);
                return Err(FetchError::TooLong { url, max });
            }
            Ok(Some(piece)) => bytes.extend_from_slice(&piece),
            Ok(None) => return Ok(bytes.freeze()),
            Err(source) => {
                let (daemon, source) = (daemon_of(response), source.into());
                return Err(FetchError::Unreachable { daemon, source });
            }
        }
    }
}

/// Returns the error of a request to `daemon` after a silence that `lasted` so long.
pub(super) fn silence(daemon: &str, lasted: Duration) -> FetchError {
    let seconds = lasted.as_secs();
    FetchError::Unreachable {
        daemon: daemon.to_owned(),
        source: ConnectionError::Silent { seconds },
    }
}

/// Returns scheme, host and port of the daemon that answers.
pub(super) fn daemon_of(response: &Response) -> String {
    response.url().origin().ascii_serialization()
}

/// Turns an answer without a success status into an error.
pub(super) async fn refusal(mut response: Response) -> FetchError {
    let status = response.status();
    let url = response.url().to_string();
    let retry_after = header(&response, RETRY_AFTER)
        .and_then(|seconds| seconds.parse().ok())
        .map(Duration::from_secs);
    let body = whole_body(&mut response, MAX_REFUSAL_LEN).await;
    let body = body
        .ok()
        .and_then(|body| serde_json::from_slice(&body).ok());
    let Some(ErrorBody { error }) = body else {
        return FetchError::Status {
            url,
            status: status.as_u16(),
        };
    };
    let (code, message) = (error.code, error.message);
    // Only a 503 with `Retry-After` says that the snapshot is still being made. Another 4xx is
    // final, and another 5xx is worth a request to the next daemon.
    match retry_after {
        Some(retry_after) if status == StatusCode::SERVICE_UNAVAILABLE => FetchError::NotYet {
            code,
            message,
            retry_after,
        },
        _ if status.is_client_error() => FetchError::Refused { code, message },
        _ => FetchError::Failed { code, message },
    }
}

/// Returns the value of a header, or `None` if it is absent or isn't ASCII text.
pub(super) fn header(response: &Response, name: reqwest::header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// Returns the total length in `Content-Range: bytes a-b/total`, or `None` if there is none.
pub(super) fn total_len(response: &Response) -> Option<u64> {
    header(response, CONTENT_RANGE)?
        .rsplit_once('/')?
        .1
        .parse()
        .ok()
}

/// Returns the snapshot in `…/<snapshot>.tar.zst`, or `None` if the path has another form.
pub(super) fn snapshot_of(path: &str) -> Option<SnapshotId> {
    let name = path.rsplit_once('/')?.1.strip_suffix(".tar.zst")?;
    SnapshotId::parse(name).ok()
}

/// Returns a body that ends with an error unless it has exactly `expected` bytes.
pub(super) fn exactly(pieces: BodyStream, expected: u64, url: String) -> BodyStream {
    // A stream has no hook for its end, so a `None` after the last piece stands for it.
    let ended = stream::once(std::future::ready(None));
    let mut received = 0_u64;
    pieces
        .map(Some)
        .chain(ended)
        .filter_map(move |piece| {
            let checked = match piece {
                Some(Ok(piece)) => {
                    received = received.saturating_add(piece.len() as u64);
                    let is_too_long = received > expected;
                    Some(if is_too_long {
                        Err(FetchError::TooLong {
                            url: url.clone(),
                            max: expected,
                        })
                    } else {
                        Ok(piece)
                    })
                }
                Some(Err(error)) => Some(Err(error)),
                None if received < expected => Some(Err(FetchError::Cut {
                    url: url.clone(),
                    received,
                    expected,
                })),
                None => None,
            };
            std::future::ready(checked)
        })
        .boxed()
}
