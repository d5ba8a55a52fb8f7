//! Direct reads: follows the 307 of a daemon to the bucket behind it, and reads the bytes there.
//!
//! A direct read follows one redirect and sends no header of the daemon's requests, so the bucket
//! never sees the token. It gives up early enough that the daemon itself can still be asked for the
//! bytes. URLs are signed, which makes them secrets: no error or log line may contain one.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use cachewfs_format::api::DIRECT_RANGE_HEADER;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::header::{CONTENT_RANGE, HeaderMap, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use tokio::time::{Instant, timeout, timeout_at};

use super::daemon::Daemon;
use super::error::DirectError;
use super::{BodyStream, FetchError};
use crate::traffic::Meter;

/// At most this many bytes of a URL to follow. Signed URLs of S3 have a few hundred, or about two
/// thousand with a session token.
const MAX_URL_LEN: usize = 8 << 10;
/// The address of the metadata service of AWS, whose IPv6 address isn't link-local.
const AWS_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// At most this long until an answer begins, and between two pieces of it.
const LONGEST_SILENCE: Duration = Duration::from_secs(3);
/// At most this many redirects within a daemon's own host, as proxies send them.
const MAX_REDIRECTS: usize = 3;

/// The time limits of a direct read.
#[derive(Clone, Copy, Debug)]
pub(super) struct DirectTimeouts {
    /// The limit until an answer begins, and between two pieces of it.
    silence: Duration,
    /// The limit for the whole direct read.
    total: Duration,
}

impl DirectTimeouts {
    /// Returns limits that leave enough of `read_timeout` to ask the daemon after a failure.
    pub(super) fn within(read_timeout: Duration) -> Self {
        // At worst, a direct read waits for `silence` and then streams for `total`: three quarters.
        Self {
            silence: LONGEST_SILENCE.min(read_timeout / 4),
            total: read_timeout / 2,
        }
    }
}

/// The target of a direct read, from a daemon's redirect.
#[derive(Debug)]
struct DirectTarget {
    url: Url,
    /// Scheme, host and port: the part of the URL that messages may contain.
    origin: String,
    range: Range<u64>,
}

/// Returns the policy for ordinary redirects: only those of a proxy within the daemon's own host.
///
/// The path must stay the same, and HTTPS must stay HTTPS.
pub(super) fn redirects() -> Policy {
    // The HTTP client would follow ten redirects to anywhere. The redirect of a direct read has
    // another path, so it stops here, and `follow` checks it.
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

/// Follows the 307 of a daemon and reads `len` bytes there.
///
/// The stream yields exactly `len` bytes or ends with an error. Its end is noted in the daemon's
/// trust.
pub(super) async fn follow(
    client: &Client,
    (daemon, redirect): (&Arc<Daemon>, &HeaderMap),
    len: u64,
    (timeouts, meter): (DirectTimeouts, Meter),
) -> Result<BodyStream, DirectError> {
    // The deadline runs from here, so that it also covers the wait for the answer's head.
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
    // Before the first byte: if verification finds wrong bytes later, trust has to know that some
    // may have come from the bucket.
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
                // At the last byte, not at the end of the stream: a consumer that has all bytes
                // need not poll again.
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

/// The rest of a direct read's answer.
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
    /// Returns the next piece with the rest, or `None` after the last one.
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

/// Returns the target of a redirect by the daemon at `base`, for a request of `len` bytes.
fn direct_target(base: &str, redirect: &HeaderMap, len: u64) -> Result<DirectTarget, DirectError> {
    let refused = |reason| DirectError::Target { reason };
    let text = |name| redirect.get(name).and_then(|value| value.to_str().ok());
    let location = text(LOCATION.as_str()).ok_or(refused("it has no Location"))?;
    if location.len() > MAX_URL_LEN {
        return Err(refused("its URL is too long"));
    }
    let url = Url::parse(location).map_err(|_| refused("its URL can't be parsed"))?;
    let base = Url::parse(base).map_err(|_| refused("the daemon's own URL can't be parsed"))?;
    // A hostile daemon must not make the mount use plain HTTP, nor send requests to services that
    // only this machine can reach.
    match (base.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => {}
        (_, "http") => return Err(refused("it goes from https to http")),
        _ => return Err(refused("its scheme is not http or https")),
    }
    if !url.has_host() || !url.username().is_empty() || url.password().is_some() {
        return Err(refused("its URL has credentials or no host"));
    }
    if is_loopback(&url) && !is_loopback(&base) {
        return Err(refused(
            "it points to this machine, but the daemon is elsewhere",
        ));
    }
    if is_metadata_service(&url) {
        return Err(refused(
            "it points to an address where clouds have their metadata services",
        ));
    }
    let range = text(DIRECT_RANGE_HEADER).and_then(parse_range);
    let range = range.filter(|range| range.end - range.start == len);
    Ok(DirectTarget {
        origin: url.origin().ascii_serialization(),
        range: range.ok_or(refused("it has no range of the requested length"))?,
        url,
    })
}

/// Returns the half-open range in `bytes=a-b`, which is never empty, or `None` if it isn't valid.
fn parse_range(text: &str) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(first..last.checked_add(1)?)
}

/// Returns whether a URL names this machine.
fn is_loopback(url: &Url) -> bool {
    let host = host(url);
    host == "localhost"
        || host.ends_with(".localhost")
        || ip_of(host).is_some_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

/// Returns whether a URL has a link-local address, or the address of a metadata service. No bucket
/// has such an address.
fn is_metadata_service(url: &Url) -> bool {
    ip_of(host(url)).is_some_and(|ip| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip == AWS_METADATA,
    })
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default().trim_end_matches('.')
}

fn ip_of(host: &str) -> Option<IpAddr> {
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    ip.map(|ip| ip.to_canonical())
}

/// Checks status, range and length of an answer before any byte of it is used.
fn check(answer: &Response, range: &Range<u64>, origin: &str) -> Result<(), DirectError> {
    let origin = || origin.to_owned();
    // A 200 would be the whole segment from its start: only a 206 has the requested range.
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
    fn a_daemon_cannot_redirect_to_an_unsafe_url() {
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
        // A daemon on this machine may point to another service on it, but no further.
        for bad in [
            "http://169.254.169.254/latest",
            "http://[fe80::1]/k",
            "http://[fd00:ec2::254]/latest",
        ] {
            assert!(
                redirect_to("http://127.0.0.1:80", bad, "bytes=5-14").is_err(),
                "{bad}"
            );
        }
        let long = format!("https://b.org/{}", "k".repeat(MAX_URL_LEN));
        assert!(redirect_to(base, &long, "bytes=5-14").is_err());
        assert!(redirect_to("http://127.0.0.1:80", "http://127.0.0.1:9/k", "bytes=5-14").is_ok());
        assert!(redirect_to("http://d.org", "http://b.org/k", "bytes=5-14").is_ok());
    }

    #[test]
    fn a_redirect_to_a_range_of_another_length_is_refused() {
        for bad in ["bytes=5-15", "bytes=5-", "bytes=14-5", "5-14", "bytes=-10"] {
            assert!(
                redirect_to("https://d.org", "https://b.org/k", bad).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn errors_do_not_contain_the_url() {
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
