//! The source of archives that asks daemons over HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cachewfs_format::api::{self, EnsureRefsAnswer, EnsureRefsRequest, RefreshAnswer, RepoStatus};
use cachewfs_format::{ArchiveKind, RepoName};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::header::{CONTENT_LOCATION, ETAG, IF_NONE_MATCH, RANGE};
use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;

use super::answer::{
    SILENCE_TIMEOUT, daemon_of, exactly, header, snapshot_of, total_len, whole_body,
};
use super::clients::Clients;
use super::connection::ConnectionError;
use super::daemon::{Daemon, in_order};
use super::direct::{self, DirectTimeouts};
use super::error::DirectError;
use super::host_list::HostList;
use super::race::{DaemonAnswer, Question};
use super::trust::DirectOffer;
use super::{ArchiveSource, BodyStream, FetchError, RangeRequest, Tail, TailAnswer};
use crate::awake::{self, Elapsed};
use crate::options::MountOptions;
use crate::token::DaemonToken;
use crate::traffic::{Meter, Purpose, Traffic};

/// At most this many characters of a notice. A longer one is cut.
const MAX_NOTICE_LEN: usize = 1000;
/// How long a refresh may take. The daemon waits for `git fetch` from upstream.
const REFRESH_TIMEOUT: Duration = Duration::from_mins(10);
/// The slowest rate for the end of an archive, in bytes per second. Most requests are for 64 KiB.
const SLOWEST_RATE: u64 = 64 << 10;
/// At most this many bytes of the answer to a refresh.
const MAX_ANSWER_LEN: u64 = 64 << 10;
/// At most this many bytes of an answer about refs. A request has at most 1 MiB, and the answer
/// repeats it.
const MAX_REFS_ANSWER_LEN: u64 = 2 << 20;
/// At most this many bytes of the state of a repository, which has up to 1000 refs and all
/// snapshots.
const MAX_STATE_LEN: u64 = 4 << 20;
/// At most this many bytes of a list of repositories. Each takes some 300 bytes.
const MAX_LIST_LEN: u64 = 64 << 20;

/// A source that consists of one or more daemons. If one fails, it asks the next.
#[derive(Debug)]
pub(crate) struct HttpSource {
    clients: Clients,
    daemons: Vec<Arc<Daemon>>,
    token: Option<DaemonToken>,
    traffic: Arc<Traffic>,
    /// The time limits of direct reads, or `None` if the mount makes none.
    direct: Option<DirectTimeouts>,
    /// How long a short answer may take, including its body. A limit on silence isn't enough: a
    /// daemon that sends a byte now and then is never silent.
    short_timeout: Duration,
}

impl HttpSource {
    /// Creates a source for the daemons in `options`. Requests carry `token`, if there is one.
    pub(crate) fn new(
        options: &MountOptions,
        token: Option<DaemonToken>,
        traffic: Arc<Traffic>,
    ) -> Result<Self, reqwest::Error> {
        let daemons = options.daemons.iter();
        let count = daemons.len();
        let daemons = daemons.map(|url| Arc::new(Daemon::new(url, count)));
        let timeouts = DirectTimeouts::within(options.read_timeout);
        Ok(Self {
            clients: Clients::new()?,
            daemons: daemons.collect(),
            token,
            traffic,
            direct: options.direct_reads.then_some(timeouts),
            short_timeout: options.read_timeout,
        })
    }

    /// Returns a question to the daemons, before any of them is asked.
    fn question<'a, R>(&'a self, meter: &'a Meter, request: R) -> Question<'a, R>
    where
        R: Fn(&reqwest::Client, &str) -> reqwest::RequestBuilder,
    {
        Question {
            clients: &self.clients,
            token: self.token.as_ref(),
            meter,
            request,
            allows_redirect: false,
            patience: SILENCE_TIMEOUT,
        }
    }

    /// Asks the daemons, starting with number `attempt`, until one gives a usable answer.
    async fn ask<R>(
        &self,
        attempt: usize,
        question: Question<'_, R>,
    ) -> Result<DaemonAnswer, FetchError>
    where
        R: Fn(&reqwest::Client, &str) -> reqwest::RequestBuilder,
    {
        let order = in_order(&self.daemons, attempt);
        // A request may have failed because its connection was dead. A retry doesn't risk that.
        question.race(order, attempt > 0).await
    }

    /// Asks one daemon after the other for an answer that takes it a `git fetch` from upstream.
    async fn ask_for_work<T: DeserializeOwned>(
        &self,
        repo: &RepoName,
        max: u64,
        request: impl Fn(&reqwest::Client, &str) -> reqwest::RequestBuilder,
    ) -> Result<T, FetchError> {
        let meter = self.traffic.meter(Some(repo), Purpose::Demand);
        let mut question = self.question(&meter, |client, daemon| {
            request(client, daemon).timeout(REFRESH_TIMEOUT)
        });
        // The daemon answers when it has fetched from upstream. Until then, it is silent, and no
        // second request would help.
        question.patience = REFRESH_TIMEOUT;
        let order = in_order(&self.daemons, 0);
        let mut response = question.ask_in_turn(order).await?.response;
        let body = whole_body(&mut response, max).await?;
        meter.count_bytes(body.len());
        parse(&response, &body)
    }

    /// Asks the daemons, and reads the whole body of at most `max` bytes. It may take `limit`.
    ///
    /// If a daemon breaks off its body, sends more, or takes longer, the next daemon is asked.
    async fn ask_for_whole(
        &self,
        (meter, max): (&Meter, u64),
        limit: Duration,
        request: impl Fn(&reqwest::Client, &str) -> reqwest::RequestBuilder,
    ) -> Result<(Response, Bytes), FetchError> {
        // `ask` only reads the head of an answer. A daemon that breaks off later is found here,
        // and the next round starts with the daemon after it.
        let mut last = FetchError::Ending;
        for attempt in 0..self.daemons.len() {
            let mut question = self.question(meter, &request);
            question.patience = limit.min(SILENCE_TIMEOUT);
            let mut response = self.ask(attempt, question).await?.response;
            last = match awake::timeout(limit, whole_body(&mut response, max)).await {
                Ok(Ok(bytes)) => return Ok((response, bytes)),
                Ok(Err(error)) => error,
                Err(Elapsed) => {
                    let seconds = limit.as_secs();
                    FetchError::Unreachable {
                        daemon: daemon_of(&response),
                        source: ConnectionError::Slow { seconds },
                    }
                }
            };
        }
        Err(last)
    }
}

impl HttpSource {
    /// Makes the direct read that an answer redirects to, if it is a redirect.
    async fn follow(&self, answer: DaemonAnswer, len: u64, meter: &Meter) -> FollowOutcome {
        let DaemonAnswer {
            daemon,
            response,
            offer,
        } = answer;
        let is_redirect = response.status() == StatusCode::TEMPORARY_REDIRECT;
        let timeouts = match self.direct {
            Some(timeouts) if is_redirect && offer != DirectOffer::None => timeouts,
            _ => {
                if offer == DirectOffer::Trial {
                    daemon.trust.note_unused();
                }
                return FollowOutcome::NotRedirected(response);
            }
        };
        let (client, drops) = self.clients.kept();
        let (from, how) = ((&daemon, response.headers()), (timeouts, meter.clone()));
        match direct::follow(&client, from, len, how).await {
            Ok(body) => FollowOutcome::DirectBody(body),
            Err(error) => {
                daemon.trust.note_failure(&daemon.url, &error);
                if matches!(error, DirectError::Slow { .. }) {
                    self.clients.drop_kept(drops);
                }
                FollowOutcome::Failed
            }
        }
    }
}

/// The outcome of following an answer that may be a redirect.
enum FollowOutcome {
    /// The answer is no redirect, and has the bytes itself.
    NotRedirected(Response),
    DirectBody(BodyStream),
    /// The direct read failed before its first byte.
    Failed,
}

impl ArchiveSource for HttpSource {
    fn tail<'a>(
        &'a self,
        repo: &'a RepoName,
        kind: ArchiveKind,
        len: u64,
        etag: Option<&'a str>,
    ) -> BoxFuture<'a, Result<TailAnswer, FetchError>> {
        Box::pin(async move {
            let path = api::stable_path(repo, kind);
            // With an `ETag`, the mount already shows a snapshot and polls for a newer one.
            let purpose = if etag.is_some() {
                Purpose::Background
            } else {
                Purpose::Demand
            };
            let meter = self.traffic.meter(Some(repo), purpose);
            let limit = self.short_timeout + Duration::from_secs(len / SLOWEST_RATE);
            let (response, bytes) = self
                .ask_for_whole((&meter, len), limit, |client, daemon| {
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
            let notice = response.headers().get(api::NOTICE_HEADER);
            let notice = notice.and_then(|notice| notice.to_str().ok());
            let notice = notice.map(|notice| notice.chars().take(MAX_NOTICE_LEN).collect());
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
            // Built here, not taken from the header: a daemon can't choose the path of later
            // requests.
            let path = api::immutable_path(repo, kind, snapshot).into();
            meter.count_bytes(bytes.len());
            Ok(TailAnswer::Tail(Tail {
                bytes,
                archive_len,
                path,
                snapshot,
                etag,
                notice,
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
            let expected = range.end.saturating_sub(range.start);
            let request = |client: &reqwest::Client, daemon: &str| {
                client
                    .get(format!("{daemon}{path}"))
                    .header(RANGE, format!("bytes={}-{last_byte}", range.start))
            };
            let mut question = self.question(&meter, &request);
            // Only the first attempt offers a direct read. After any failure, wrong bytes included,
            // the retry takes the safest way.
            question.allows_redirect = self.direct.is_some() && attempt == 0;
            let answer = self.ask(attempt, question).await?;
            let response = match self.follow(answer, expected, &meter).await {
                FollowOutcome::DirectBody(body) => return Ok(body),
                FollowOutcome::NotRedirected(response) => response,
                // The daemon is asked at once, within this attempt: the caller doesn't back off.
                FollowOutcome::Failed => {
                    let question = self.question(&meter, &request);
                    self.ask(attempt, question).await?.response
                }
            };
            let url = response.url().to_string();
            if response.status() != StatusCode::PARTIAL_CONTENT {
                return Err(FetchError::Status {
                    url,
                    status: response.status().as_u16(),
                });
            }
            let daemon = daemon_of(&response);
            let pieces = response
                .bytes_stream()
                .map_err(move |source| FetchError::Unreachable {
                    daemon: daemon.clone(),
                    source: source.into(),
                })
                .inspect_ok(move |piece| meter.count_bytes(piece.len()));
            Ok(exactly(pieces.boxed(), expected, url))
        })
    }

    fn note_broken(&self) {
        for daemon in &self.daemons {
            daemon.trust.note_broken(&daemon.url);
        }
    }

    fn refresh<'a>(
        &'a self,
        repo: &'a RepoName,
    ) -> BoxFuture<'a, Result<RefreshAnswer, FetchError>> {
        Box::pin(async move {
            let path = api::refresh_path(repo);
            self.ask_for_work(repo, MAX_ANSWER_LEN, |client, daemon| {
                client.post(format!("{daemon}{path}"))
            })
            .await
        })
    }

    fn ensure_refs<'a>(
        &'a self,
        repo: &'a RepoName,
        wanted: &'a EnsureRefsRequest,
    ) -> BoxFuture<'a, Result<EnsureRefsAnswer, FetchError>> {
        Box::pin(async move {
            let path = api::ensure_refs_path(repo);
            self.ask_for_work(repo, MAX_REFS_ANSWER_LEN, |client, daemon| {
                client.post(format!("{daemon}{path}")).json(wanted)
            })
            .await
        })
    }

    fn state<'a>(
        &'a self,
        repo: &'a RepoName,
    ) -> BoxFuture<'a, Result<Option<RepoStatus>, FetchError>> {
        Box::pin(async move {
            let meter = self.traffic.meter(Some(repo), Purpose::Background);
            let path = api::repo_path(repo);
            let (response, body) = self
                .ask_for_whole(
                    (&meter, MAX_STATE_LEN),
                    self.short_timeout,
                    |client, daemon| client.get(format!("{daemon}{path}")),
                )
                .await?;
            meter.count_bytes(body.len());
            parse(&response, &body).map(Some)
        })
    }

    fn hosts(&self, purpose: Purpose) -> BoxFuture<'_, Result<Vec<String>, FetchError>> {
        Box::pin(async move {
            let meter = self.traffic.meter(None, purpose);
            let (response, body) = self
                .ask_for_whole(
                    (&meter, MAX_LIST_LEN),
                    self.short_timeout,
                    |client, daemon| client.get(format!("{daemon}{}", api::REPOS_PATH)),
                )
                .await?;
            meter.count_bytes(body.len());
            parse(&response, &body).map(|list: HostList| list.hosts)
        })
    }
}

/// Parses the JSON body of an answer.
fn parse<T: DeserializeOwned>(response: &Response, body: &[u8]) -> Result<T, FetchError> {
    serde_json::from_slice(body).map_err(|error| FetchError::NotJson {
        url: response.url().to_string(),
        source: error,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Starts a daemon that gives one answer to each request and closes the connection. Returns its
    /// URL.
    fn daemon(answer: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // A request of this test comes in one piece.
                let len = stream.read(&mut [0; 4096]).unwrap();
                assert!(len > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        url
    }

    fn source(answers: impl IntoIterator<Item = String>) -> HttpSource {
        let daemons = answers.into_iter().map(daemon).collect();
        let options = MountOptions::new("/mnt".into(), daemons);
        HttpSource::new(&options, None, Arc::default()).unwrap()
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}")
    }

    #[tokio::test]
    async fn no_body_is_read_beyond_its_limit() {
        let repo = RepoName::parse("example.com/a").unwrap();
        let long = "x".repeat(1 << 20);

        let tail = source([answer("206 Partial Content", &long)]);
        let tail = tail.tail(&repo, ArchiveKind::Checkout, 1000, None).await;
        assert!(matches!(tail, Err(FetchError::TooLong { max: 1000, .. })));

        let refresh = source([answer("200 OK", &long)]);
        let refresh = refresh.refresh(&repo).await;
        assert!(matches!(refresh, Err(FetchError::TooLong { .. })));

        let error = format!(r#"{{"error":{{"code":"c","message":"{long}"}}}}"#);
        let refused = source([answer("404 Not Found", &error)]);
        let refused = refused.refresh(&repo).await;
        assert!(matches!(
            refused,
            Err(FetchError::Status { status: 404, .. })
        ));
    }

    #[tokio::test]
    async fn invalid_names_of_hosts_are_left_out_and_the_list_is_counted() {
        let list = r#"{"repos":[{"x":1}],"hosts":["a.org","../x","b/c","","b.org"]}"#;

        for (purpose, demand) in [(Purpose::Demand, 1), (Purpose::Background, 0)] {
            let source = source([answer("200 OK", list)]);
            let hosts = source.hosts(purpose).await.unwrap();

            assert_eq!(hosts, ["a.org", "b.org"]);
            let (traffic, len) = (source.traffic.report(), list.len() as u64);
            assert_eq!((traffic.requests, traffic.fetched_bytes), (1, len));
            assert_eq!(traffic.demand_requests, demand);
            assert_eq!(traffic.demand_bytes, demand * len);
        }
    }

    #[tokio::test]
    async fn a_daemon_that_drips_is_not_waited_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let daemon = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let head = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 100000\r\n\r\n";
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    // An answer before the request would be an error at once.
                    let len = stream.read(&mut [0; 4096]).await.unwrap();
                    assert!(len > 0);
                    let mut piece = &head[..];
                    while stream.write_all(piece).await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        piece = b"x";
                    }
                });
            }
        });
        let mut options = MountOptions::new("/mnt".into(), vec![daemon]);
        options.read_timeout = Duration::from_millis(300);
        let source = HttpSource::new(&options, None, Arc::default()).unwrap();
        let repo = RepoName::parse("example.com/a").unwrap();

        let answers = async {
            let tail = source
                .tail(&repo, ArchiveKind::Checkout, 100_000, None)
                .await;
            (tail, source.hosts(Purpose::Demand).await)
        };
        let answers = tokio::time::timeout(Duration::from_secs(10), answers).await;

        let (tail, hosts) = answers.expect("nobody waits for the last byte");
        assert!(source.traffic.heard_at().is_some(), "it dripped");
        assert!(matches!(tail, Err(FetchError::Unreachable { .. })));
        assert!(matches!(hosts, Err(FetchError::Unreachable { .. })));
    }

    #[tokio::test]
    async fn if_a_daemon_breaks_off_the_next_one_is_asked() {
        let repo = RepoName::parse("example.com/a").unwrap();
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\nContent-Range: bytes 6-9/10\r\n\
             ETag: \"e\"\r\nContent-Location: /snapshot/{}.tar.zst\r\n\r\n",
            "1".repeat(40)
        );
        let source = source([format!("{head}ta"), format!("{head}tail")]);

        let answer = source.tail(&repo, ArchiveKind::Checkout, 4, None).await;

        let TailAnswer::Tail(tail) = answer.unwrap() else {
            panic!("there is a tail");
        };
        assert_eq!(&tail.bytes[..], b"tail");
    }
}
