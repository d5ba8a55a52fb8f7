//! Reading where a daemon points: one hop, with nothing of the daemon's, and given up early enough that
//! the daemon can still be asked for the bytes.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::api::DIRECT_RANGE_HEADER;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::header::{CONTENT_RANGE, HeaderMap, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use tokio::time::{Instant, timeout, timeout_at};

use super::http::Daemon;
use super::{BodyStream, FetchError};
use crate::traffic::Meter;

/// A longer URL is not followed, in bytes: those of S3 have a few hundred, with a session's token two thousand.
const MAX_URL_LEN: usize = 8 << 10;
/// How long an answer may take to begin, or to go on, at most.
const LONGEST_SILENCE: Duration = Duration::from_secs(3);
/// Redirects within a daemon's own host that are followed, as proxies have them.
const MAX_REDIRECTS: usize = 3;

/// Why bytes can't be read where a daemon points. Never has the URL, which is a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectError {
    /// It is no place to go to.
    #[error("what the daemon says is not followed: {reason}")]
    Target {
        /// Why not.
        reason: &'static str,
    },
    /// No connection, or none any more.
    #[error("{origin} can't be reached")]
    Unreachable {
        /// Scheme, host and port.
        origin: String,
        /// Without the URL.
        source: reqwest::Error,
    },
    /// It answers something else.
    #[error("{origin} answered {status}")]
    Status {
        /// Scheme, host and port.
        origin: String,
        /// The status.
        status: u16,
    },
    /// It sends another range.
    #[error("{origin} sent another range than was asked for")]
    Range {
        /// Scheme, host and port.
        origin: String,
    },
    /// It ends early, or goes on too long.
    #[error("{origin} sent another number of bytes than was asked for")]
    Length {
        /// Scheme, host and port.
        origin: String,
    },
    /// It takes too long.
    #[error("{origin} is too slow")]
    Slow {
        /// Scheme, host and port.
        origin: String,
    },
}

/// How long direct reads may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct DirectTimeouts {
    /// Until an answer begins, or goes on.
    silence: Duration,
    /// In all.
    total: Duration,
}

impl DirectTimeouts {
    /// A part of the time that a read has, so that the rest is enough to ask the daemon.
    pub(super) fn within(read_timeout: Duration) -> Self {
        Self {
            silence: LONGEST_SILENCE.min(read_timeout / 4),
            total: read_timeout / 2,
        }
    }
}

/// Where to go, and what to ask for there.
#[derive(Debug)]
struct DirectTarget {
    url: Url,
    /// For people: scheme, host and port.
    origin: String,
    range: Range<u64>,
}

/// Redirects that are followed without a thought: a proxy's, of the same name, to the same path. Where a
/// daemon points is another matter; nothing else is followed.
pub(super) fn redirects() -> Policy {
    Policy::custom(|attempt| {
        let to = attempt.url();
        let is_same = attempt.previous().last().is_some_and(|from| {
            let is_worse = from.scheme() == "https" && to.scheme() != "https";
            let same = |url: &Url| (url.path().to_owned(), url.query().map(str::to_owned));
            from.host_str() == to.host_str() && same(from) == same(to) && !is_worse
        });
        if is_same && attempt.previous().len() <= MAX_REDIRECTS {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

/// Reads `len` bytes where the 307 of a daemon points. The stream yields exactly these, or ends with an error;
/// the daemon's trust follows from how it ends.
pub(super) async fn follow(
    client: &Client,
    (daemon, redirect): (&Arc<Daemon>, &HeaderMap),
    len: u64,
    (timeouts, meter): (DirectTimeouts, Meter),
) -> Result<BodyStream, DirectError> {
    let deadline = Instant::now() + timeouts.total;
    let DirectTarget { url, origin, range } = direct_target(&daemon.url, redirect, len)?;
    meter.count_request();
    let last = range.end.saturating_sub(1);
    let request = client
        .get(url)
        .header(RANGE, format!("bytes={}-{last}", range.start));
    let Ok(answer) = timeout(timeouts.silence, request.send()).await else {
        return Err(DirectError::Slow { origin });
    };
    let answer = answer.map_err(|source| DirectError::Unreachable {
        origin: origin.clone(),
        source: source.without_url(),
    })?;
    check(&answer, &range, &origin)?;
    daemon.trust.note_reading();
    let body = DirectBody {
        pieces: answer.bytes_stream().boxed(),
        left: len,
        origin,
        silence: timeouts.silence,
        deadline,
    };
    let daemon = Arc::clone(daemon);
    let pieces = stream::try_unfold(body, DirectBody::next);
    let pieces = pieces.inspect_ok(move |piece: &bytes::Bytes| meter.count_direct(piece.len()));
    let mut left = len;
    Ok(pieces
        .inspect(move |piece| match piece {
            Ok(piece) => {
                left = left.saturating_sub(piece.len() as u64);
                if left == 0 {
                    daemon.trust.note_success(&daemon.url);
                }
            }
            Err(error) => daemon.trust.note_failure(&daemon.url, error),
        })
        .map_err(FetchError::Direct)
        .boxed())
}

/// What is left of an answer.
struct DirectBody<P> {
    pieces: P,
    left: u64,
    origin: String,
    silence: Duration,
    deadline: Instant,
}

impl<P> DirectBody<P>
where
    P: stream::Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin,
{
    async fn next(mut self) -> Result<Option<(bytes::Bytes, Self)>, DirectError> {
        let origin = || self.origin.clone();
        let until = self.deadline.min(Instant::now() + self.silence);
        let piece = match timeout_at(until, self.pieces.next()).await {
            Err(_) => return Err(DirectError::Slow { origin: origin() }),
            Ok(None) if self.left == 0 => return Ok(None),
            Ok(None) => return Err(DirectError::Length { origin: origin() }),
            Ok(Some(piece)) => piece.map_err(|source| DirectError::Unreachable {
                origin: origin(),
                source: source.without_url(),
            })?,
        };
        let left = self.left.checked_sub(piece.len() as u64);
        self.left = left.ok_or_else(|| DirectError::Length { origin: origin() })?;
        Ok(Some((piece, self)))
    }
}

/// Where the answer of the daemon at `base` points for a request of `len` bytes, if that is a place to go to.
fn direct_target(base: &str, redirect: &HeaderMap, len: u64) -> Result<DirectTarget, DirectError> {
    let refused = |reason| DirectError::Target { reason };
    let text = |name| redirect.get(name).and_then(|value| value.to_str().ok());
    let location = text(LOCATION.as_str()).ok_or(refused("it names no place"))?;
    if location.len() > MAX_URL_LEN {
        return Err(refused("the URL is too long"));
    }
    let url = Url::parse(location).map_err(|_| refused("it is no URL"))?;
    let base = Url::parse(base).map_err(|_| refused("it is no URL"))?;
    match (base.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => {}
        (_, "http") => return Err(refused("it is less safe than the daemon")),
        _ => return Err(refused("it is not of HTTP")),
    }
    if !url.has_host() || !url.username().is_empty() || url.password().is_some() {
        return Err(refused("it has credentials, or no host"));
    }
    if is_this_machine(&url) && !is_this_machine(&base) {
        return Err(refused("it is this machine, and the daemon is not"));
    }
    let range = text(DIRECT_RANGE_HEADER).and_then(parse_range);
    let range = range.filter(|range| range.end - range.start == len);
    Ok(DirectTarget {
        origin: url.origin().ascii_serialization(),
        range: range.ok_or(refused("it names no range of this length"))?,
        url,
    })
}

/// The half-open range in `bytes=a-b`; not empty.
fn parse_range(text: &str) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(first..last.checked_add(1)?)
}

/// Whether a URL says that it is of this machine, or of what is plugged into it, such as a cloud's metadata.
fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_end_matches('.');
    if host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    let ip: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    ip.is_ok_and(|ip| match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local(),
    })
}

/// Refuses an answer that is not what was asked for.
fn check(answer: &Response, range: &Range<u64>, origin: &str) -> Result<(), DirectError> {
    let origin = || origin.to_owned();
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        let (origin, status) = (origin(), answer.status().as_u16());
        return Err(DirectError::Status { origin, status });
    }
    let sent = answer.headers().get(CONTENT_RANGE);
    let sent = sent
        .and_then(|sent| sent.to_str().ok()?.strip_prefix("bytes ")?.split_once('/'))
        .and_then(|(sent, _)| parse_range(&format!("bytes={sent}")));
    if sent.as_ref() != Some(range) {
        return Err(DirectError::Range { origin: origin() });
    }
    let len = answer.content_length();
    if len.is_some_and(|len| len != range.end - range.start) {
        return Err(DirectError::Length { origin: origin() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect_to(base: &str, location: &str, range: &str) -> Result<DirectTarget, DirectError> {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, location.parse().unwrap());
        headers.insert(DIRECT_RANGE_HEADER, range.parse().unwrap());
        direct_target(base, &headers, 10)
    }

    #[test]
    fn the_range_is_the_one_that_the_daemon_names() {
        let place = redirect_to(
            "https://d.org",
            "https://b.org:9/k?sig=s3cret",
            "bytes=5-14",
        )
        .unwrap();

        assert_eq!(place.range, 5..15);
        assert_eq!(place.origin, "https://b.org:9");
    }

    #[test]
    fn a_daemon_cannot_point_anywhere() {
        let base = "https://d.org/x";
        for bad in [
            "http://b.org/k",
            "file:///etc/passwd",
            "ftp://b.org/k",
            "/k",
            "https://me:secret@b.org/k",
            "https://127.0.0.1/k",
            "https://[::ffff:127.0.0.1]/k",
            "https://169.254.169.254/latest",
            "https://localhost./k",
            "https://0/k",
        ] {
            assert!(redirect_to(base, bad, "bytes=5-14").is_err(), "{bad}");
        }
        let long = format!("https://b.org/{}", "k".repeat(MAX_URL_LEN));
        assert!(redirect_to(base, &long, "bytes=5-14").is_err());
        assert!(redirect_to("http://127.0.0.1:80", "http://127.0.0.1:9/k", "bytes=5-14").is_ok());
        assert!(redirect_to("http://d.org", "http://b.org/k", "bytes=5-14").is_ok());
    }

    #[test]
    fn a_daemon_cannot_name_another_length() {
        for bad in ["bytes=5-15", "bytes=5-", "bytes=14-5", "5-14", "bytes=-10"] {
            assert!(
                redirect_to("https://d.org", "https://b.org/k", bad).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn errors_keep_the_url_to_themselves() {
        let error =
            redirect_to("https://d.org", "http://b.org/k?sig=s3cret", "bytes=5-14").unwrap_err();

        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }

    #[test]
    fn a_read_has_time_left_after_a_direct_one_failed() {
        for seconds in [1, 3, 60, 3600] {
            let limit = Duration::from_secs(seconds);
            let timeouts = DirectTimeouts::within(limit);

            assert!(timeouts.silence + timeouts.total < limit);
        }
    }
}
