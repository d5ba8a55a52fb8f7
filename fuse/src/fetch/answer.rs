//! What the answer of a daemon says.

use std::time::Duration;

use cachewfs_format::SnapshotId;
use cachewfs_format::api::ErrorBody;
use futures_util::{StreamExt as _, stream};
use reqwest::header::{CONTENT_RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::{BodyStream, FetchError};

/// Turns an answer that is no success into an error.
pub(super) async fn refusal(response: Response) -> FetchError {
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
        _ => FetchError::Failed { code, message },
    }
}

pub(super) fn header(response: &Response, name: reqwest::header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// The total length in `Content-Range: bytes a-b/total`.
pub(super) fn total_len(response: &Response) -> Option<u64> {
    header(response, CONTENT_RANGE)?
        .rsplit_once('/')?
        .1
        .parse()
        .ok()
}

/// The snapshot in `…/<snapshot>.tar.zst`.
pub(super) fn snapshot_of(path: &str) -> Option<SnapshotId> {
    let name = path.rsplit_once('/')?.1.strip_suffix(".tar.zst")?;
    SnapshotId::parse(name).ok()
}

/// Makes a body that ends early, or goes on too long, end with an error.
pub(super) fn exactly(pieces: BodyStream, expected: u64, url: String) -> BodyStream {
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
