//! Asks for one answer in several ways, one after the other, until one of them answers.
//!
//! ```text
//! 0 s    first daemon, over a kept connection if there is one
//! 1.5 s  first daemon, over a new connection
//! 4 s    next daemon, over a new connection; and so on
//! ```
//!
//! An earlier request goes on when a later one starts, and the first answer counts. So a dead
//! connection or a dead daemon costs seconds, and a slow daemon costs a second request. After a
//! daemon that fails at once comes the next one at once. If the last one fails while others are
//! silent, it is asked again every 1.5 s.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use tokio::time::{Instant, sleep, sleep_until};

use super::FetchError;
use super::answer::{SILENCE_TIMEOUT, refusal, silence};
use super::clients::Clients;
use super::daemon::Daemon;
use super::trust::DirectOffer;
use crate::awake;
use crate::token::DaemonToken;
use crate::traffic::Meter;

/// How long a kept connection is waited for before a new one is made.
const KEPT_PATIENCE: Duration = Duration::from_millis(1500);
/// How long a daemon is waited for after that, before the next one is asked. A daemon itself waits
/// 3 s for a first snapshot before it answers, and first lookups end after 5 s.
const FRESH_PATIENCE: Duration = Duration::from_millis(2500);

/// A question to the daemons.
pub(super) struct Question<'a, R> {
    pub(super) clients: &'a Clients,
    pub(super) token: Option<&'a DaemonToken>,
    pub(super) meter: &'a Meter,
    /// Makes the request for a daemon with this base URL.
    pub(super) request: R,
    /// Whether a redirect to the bucket is an answer, too.
    pub(super) allows_redirect: bool,
    /// How long a daemon may take to begin its answer.
    pub(super) patience: Duration,
}

/// The usable answer of a daemon.
pub(super) struct DaemonAnswer {
    pub(super) daemon: Arc<Daemon>,
    pub(super) response: Response,
    pub(super) offer: DirectOffer,
}

/// A request to one daemon, under way.
struct Leg {
    daemon: Arc<Daemon>,
    /// The number for [`Clients::drop_kept`] if the request may use a kept connection.
    kept: Option<u64>,
    offer: DirectOffer,
    started: Instant,
}

type Ended = (usize, Result<Response, FetchError>);
type LegFuture<'a> = Pin<Box<dyn Future<Output = Ended> + Send + 'a>>;

impl<R> Question<'_, R>
where
    R: Fn(&Client, &str) -> RequestBuilder,
{
    /// Asks the daemons in `order`. With `is_suspect`, no kept connection is used.
    pub(super) async fn race(
        &self,
        order: Vec<Arc<Daemon>>,
        mut is_suspect: bool,
    ) -> Result<DaemonAnswer, FetchError> {
        let mut order = order.into_iter();
        let mut next = order.next();
        let mut last = FetchError::Ending;
        let mut legs: Vec<Option<Leg>> = Vec::new();
        let mut under_way = FuturesUnordered::new();
        let mut due = Instant::now();
        loop {
            tokio::select! {
                biased;
                Some((number, outcome)) = under_way.next(), if !under_way.is_empty() => {
                    let Some(leg) = legs.get_mut(number).and_then(Option::take) else {
                        continue;
                    };
                    match outcome {
                        Ok(response) => {
                            self.learn(&leg, &legs, &response);
                            return Ok(DaemonAnswer {
                                daemon: leg.daemon,
                                response,
                                offer: leg.offer,
                            });
                        }
                        Err(error) => {
                            leg.note_failure(&error);
                            // A refusal is final: the daemons are replicas, and another one would
                            // refuse, too.
                            if !error.is_transient() {
                                give_back(&legs);
                                return Err(error);
                            }
                            if next.as_ref().is_some_and(|next| Arc::ptr_eq(next, &leg.daemon)) {
                                next = order.next();
                            }
                            if under_way.is_empty() && next.is_none() {
                                return Err(error);
                            }
                            last = error;
                            due = Instant::now();
                            if next.is_none() && leg.kept.is_none() {
                                // All earlier requests may wait in vain, and this one may have met
                                // a network that just comes back.
                                next = Some(leg.daemon);
                                due += KEPT_PATIENCE;
                            }
                        }
                    }
                }
                () = sleep_until(due), if next.is_some() => {
                    let Some(daemon) = next.take() else {
                        continue;
                    };
                    // The daemon before this one, or this one's kept connection, is silent.
                    is_suspect |= !legs.iter().all(Option::is_none);
                    let (leg, future) = self.start(daemon, legs.len(), is_suspect);
                    let patience = if leg.kept.is_some() { KEPT_PATIENCE } else { FRESH_PATIENCE };
                    due = leg.started + patience;
                    next = if is_suspect {
                        order.next()
                    } else {
                        Some(Arc::clone(&leg.daemon))
                    };
                    under_way.push(future);
                    legs.push(Some(leg));
                }
                else => return Err(last),
            }
        }
    }

    /// Asks the daemons in `order` once each, the next one only if the one before failed. A daemon
    /// may work on its answer for long, as long as it lives.
    pub(super) async fn ask_in_turn(
        &self,
        order: Vec<Arc<Daemon>>,
    ) -> Result<DaemonAnswer, FetchError> {
        let mut last = FetchError::Ending;
        for daemon in order {
            let (leg, future) = self.start(daemon, 0, true);
            let answered = tokio::select! {
                (_, answered) = future => answered,
                () = self.until_dead(&leg.daemon) => Err(silence(&leg.daemon.url, SILENCE_TIMEOUT)),
            };
            match answered {
                Ok(response) => {
                    self.learn(&leg, &[], &response);
                    return Ok(DaemonAnswer {
                        daemon: leg.daemon,
                        response,
                        offer: leg.offer,
                    });
                }
                Err(error) => {
                    leg.note_failure(&error);
                    last = error;
                }
            }
            if !last.is_transient() {
                break;
            }
        }
        Err(last)
    }

    /// Returns once `daemon` gives no answer to a request that needs no work.
    async fn until_dead(&self, daemon: &Daemon) {
        loop {
            sleep(SILENCE_TIMEOUT).await;
            let request = self.clients.fresh.get(format!("{}/healthz", daemon.url));
            let answered = awake::timeout(SILENCE_TIMEOUT, request.send()).await;
            // Any answer will do: a proxy may know no such path.
            if !matches!(answered, Ok(Ok(_))) {
                return;
            }
        }
    }

    /// Starts a request to `daemon`, over a new connection if `is_fresh`.
    fn start(&self, daemon: Arc<Daemon>, number: usize, is_fresh: bool) -> (Leg, LegFuture<'_>) {
        self.meter.count_request();
        let (client, kept) = if is_fresh {
            (self.clients.fresh.clone(), None)
        } else {
            let (client, drops) = self.clients.kept();
            (client, Some(drops))
        };
        let mut request = (self.request)(&client, &daemon.url);
        let offer = if self.allows_redirect {
            daemon.trust.offer()
        } else {
            DirectOffer::None
        };
        if offer != DirectOffer::None {
            request = request.header(cachewfs_format::api::DIRECT_HEADER, "1");
        }
        if let Some(token) = self.token {
            request = request.header(reqwest::header::AUTHORIZATION, token.header());
        }
        let (url, patience, meter) = (daemon.url.clone(), self.patience, self.meter.clone());
        let future = Box::pin(async move {
            (
                number,
                answer(request, (url, offer), patience, &meter).await,
            )
        });
        let leg = Leg {
            daemon,
            kept,
            offer,
            started: Instant::now(),
        };
        (leg, future)
    }

    /// Draws the conclusions from the first answer: `others` have not answered yet.
    fn learn(&self, winner: &Leg, others: &[Option<Leg>], response: &Response) {
        winner.daemon.note_answer();
        if let Some(address) = response.remote_addr() {
            self.clients.note_address(address);
        }
        for other in others.iter().flatten() {
            if let Some(drops) = other.kept {
                // A later request was answered first, so the kept connection seems dead. Then all
                // others probably are, too.
                self.clients.drop_kept(drops);
            }
            let is_other = !Arc::ptr_eq(&other.daemon, &winner.daemon);
            if is_other && other.started.elapsed() >= FRESH_PATIENCE {
                other.daemon.note_silence();
            }
        }
        give_back(others);
    }
}

impl Leg {
    fn note_failure(&self, error: &FetchError) {
        if self.offer == DirectOffer::Trial {
            self.daemon.trust.note_unused();
        }
        match error {
            FetchError::Unreachable { .. } if self.started.elapsed() >= FRESH_PATIENCE => {
                self.daemon.note_silence();
            }
            FetchError::Unreachable { .. } => {}
            _ => self.daemon.note_answer(),
        }
    }
}

/// Gives back the tries of direct reads that `legs` were allowed and didn't make.
fn give_back(legs: &[Option<Leg>]) {
    for leg in legs.iter().flatten() {
        if leg.offer == DirectOffer::Trial {
            leg.daemon.trust.note_unused();
        }
    }
}

/// Sends `request` to the daemon at `url`, and returns its answer if it is usable.
async fn answer(
    request: RequestBuilder,
    (url, offer): (String, DirectOffer),
    patience: Duration,
    meter: &Meter,
) -> Result<Response, FetchError> {
    let Ok(outcome) = awake::timeout(patience, request.send()).await else {
        return Err(silence(&url, patience));
    };
    let response = outcome.map_err(|source| FetchError::Unreachable {
        daemon: url.clone(),
        source: source.into(),
    })?;
    meter.note_answer();
    if is_usable(response.status(), offer) {
        return Ok(response);
    }
    match awake::timeout(patience, refusal(response)).await {
        Ok(error) => Err(error),
        Err(_) => Err(silence(&url, patience)),
    }
}

fn is_usable(status: StatusCode, offer: DirectOffer) -> bool {
    status.is_success()
        || status == StatusCode::NOT_MODIFIED
        || offer != DirectOffer::None && status == StatusCode::TEMPORARY_REDIRECT
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::traffic::{Purpose, Traffic};

    /// A server that gives one answer to each request, and whose connections can fall silent.
    struct Server {
        daemon: Arc<Daemon>,
        shared: Arc<Shared>,
    }

    #[derive(Default)]
    struct Shared {
        connections: AtomicUsize,
        /// Connections with a smaller number are silent.
        silent_below: AtomicUsize,
        /// Nothing is answered before there are this many connections.
        awaited: AtomicUsize,
        /// How many of the next requests fail.
        failures: AtomicUsize,
        requests: AtomicUsize,
    }

    impl Server {
        async fn start(answer: &'static str) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let daemon = Daemon::new(&format!("http://{}", listener.local_addr().unwrap()), 2);
            let shared = Arc::new(Shared::default());
            let accepting = Arc::clone(&shared);
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let shared = Arc::clone(&accepting);
                    let number = shared.connections.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(async move {
                        // A request of this test comes in one piece.
                        while let Ok(1..) = stream.read(&mut [0; 4096]).await {
                            shared.requests.fetch_add(1, Ordering::Relaxed);
                            if number < shared.silent_below.load(Ordering::Relaxed) {
                                continue;
                            }
                            while shared.connections.load(Ordering::Relaxed)
                                < shared.awaited.load(Ordering::Relaxed)
                            {
                                tokio::task::yield_now().await;
                            }
                            let failures = &shared.failures;
                            let left = failures.load(Ordering::Relaxed);
                            failures.store(left.saturating_sub(1), Ordering::Relaxed);
                            let answer = if left > 0 { FAILED } else { answer };
                            stream.write_all(answer.as_bytes()).await.unwrap();
                        }
                    });
                }
            });
            let daemon = Arc::new(daemon);
            Self { daemon, shared }
        }

        /// From now on, the connections before number `number` are silent.
        fn silence_below(&self, number: usize) {
            let silent_below = &self.shared.silent_below;
            silent_below.store(number, Ordering::Relaxed);
        }

        fn take_requests(&self) -> usize {
            self.shared.requests.swap(0, Ordering::Relaxed)
        }

        fn connections(&self) -> usize {
            self.shared.connections.load(Ordering::Relaxed)
        }
    }

    const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    const FAILED: &str = "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n";

    async fn ask(clients: &Clients, servers: &[&Server]) -> Result<Arc<Daemon>, FetchError> {
        let meter = Traffic::default().meter(None, Purpose::Demand);
        let question = Question {
            clients,
            token: None,
            meter: &meter,
            request: |client: &Client, url: &str| client.get(url),
            allows_redirect: true,
            patience: SILENCE_TIMEOUT,
        };
        let daemons: Vec<_> = servers.iter().map(|server| server.daemon.clone()).collect();
        let order = super::super::daemon::in_order(&daemons, 0);
        let answer = question.race(order, false).await?;
        // Only a body that was read leaves its connection for the next request.
        answer.response.bytes().await.unwrap();
        Ok(answer.daemon)
    }

    #[tokio::test]
    async fn one_dead_connection_teaches_the_requests_after_it() {
        let server = Server::start(FINE).await;
        let clients = Clients::new().unwrap();
        let servers = [&server];
        // Otherwise the last of them may use the connection of the first.
        server.shared.awaited.store(4, Ordering::Relaxed);
        let parallel = (0..4).map(|_| ask(&clients, &servers));
        for answer in futures_util::future::join_all(parallel).await {
            answer.unwrap();
        }
        let dead = server.connections();
        assert_eq!((dead, server.take_requests()), (4, 4));

        server.silence_below(dead);
        ask(&clients, &[&server]).await.unwrap();
        // Once over a dead connection, once over a new one.
        assert_eq!(server.take_requests(), 2);

        for _ in 0..4 {
            ask(&clients, &[&server]).await.unwrap();
        }
        assert_eq!(server.take_requests(), 4);
        // One for the race, and one that is kept since.
        assert_eq!(server.connections(), dead + 2);
    }

    #[tokio::test]
    async fn a_daemon_that_fails_once_is_asked_again_while_a_connection_is_silent() {
        let server = Server::start(FINE).await;
        let clients = Clients::new().unwrap();
        ask(&clients, &[&server]).await.unwrap();
        server.silence_below(server.connections());
        server.shared.failures.store(1, Ordering::Relaxed);
        server.take_requests();

        ask(&clients, &[&server]).await.unwrap();

        // Over the silent connection, over a new one, and again.
        assert_eq!(server.take_requests(), 3);
    }

    #[tokio::test]
    async fn a_silent_daemon_delays_one_request_only() {
        let (silent, other) = (Server::start(FINE).await, Server::start(FINE).await);
        silent.silence_below(usize::MAX);
        let clients = Clients::new().unwrap();
        let servers = [&silent, &other];
        for _ in 0..5 {
            let answered_by = ask(&clients, &servers).await.unwrap();
            assert_eq!(answered_by.url, other.daemon.url);
        }

        // Over a kept connection that it might have, and over a new one.
        assert_eq!((silent.take_requests(), other.take_requests()), (2, 5));
    }

    #[tokio::test]
    async fn a_daemon_that_fails_at_once_delays_nothing() {
        let (failing, other) = (Server::start(FAILED).await, Server::start(FINE).await);
        let clients = Clients::new().unwrap();
        let started = Instant::now();

        ask(&clients, &[&failing, &other]).await.unwrap();
        ask(&clients, &[&failing]).await.err().unwrap();

        assert_eq!((failing.take_requests(), other.take_requests()), (2, 1));
        assert!(started.elapsed() < KEPT_PATIENCE, "it was waited for");
    }

    #[tokio::test]
    async fn a_daemon_that_fails_gives_back_the_try_of_a_direct_read() {
        let server = Server::start(FAILED).await;
        let trust = &server.daemon.trust;
        trust.note_failure("", &std::io::Error::other("refused"));
        trust.skip_backoff();

        ask(&Clients::new().unwrap(), &[&server])
            .await
            .err()
            .unwrap();

        assert_eq!(trust.offer(), DirectOffer::Trial);
    }
}
