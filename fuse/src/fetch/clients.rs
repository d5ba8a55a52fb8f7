//! The HTTP clients, and the reasons to distrust the connections that they keep.
//!
//! A kept connection can be dead without a sign: a VPN dropped, a router forgot it, the machine was
//! suspended. A request over it would wait in vain. So all kept connections are dropped when one
//! proves dead, when the clock jumps, and when packets to a daemon would leave from another
//! address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use reqwest::{Client, ClientBuilder};
use tracing::{info, warn};

use super::direct;

/// How long a connection may take to be made. Less than the default `read_timeout`, so that there
/// is time to ask another daemon.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// At most this many addresses of daemons are watched. A daemon has one or two.
const MAX_WATCHED: usize = 16;
/// How far the clock may move against the time that the machine was awake. A suspend of less time
/// ends no connection, and corrections of the clock are smaller.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

/// The clients of a mount.
#[derive(Debug)]
pub(super) struct Clients {
    /// A client that makes a new connection for each request.
    pub(super) fresh: Client,
    kept: Mutex<KeptClient>,
}

/// A client that keeps connections, and the circumstances in which they were made.
#[derive(Debug)]
struct KeptClient {
    client: Client,
    /// The number of times that the connections were dropped.
    drops: u64,
    clock: Clock,
    /// The addresses of daemons, each with the address of this machine that reaches it.
    routes: BTreeMap<SocketAddr, Option<IpAddr>>,
}

/// The two clocks of a machine: the second one stands still while it is suspended.
#[derive(Clone, Copy, Debug)]
struct Clock {
    wall: SystemTime,
    awake: Instant,
}

impl Clients {
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        Ok(Self {
            fresh: build(|builder| builder.pool_max_idle_per_host(0))?,
            kept: Mutex::new(KeptClient {
                client: build(|builder| builder)?,
                drops: 0,
                clock: Clock::now(),
                routes: BTreeMap::new(),
            }),
        })
    }

    /// Returns a client that may use a kept connection, and the number that [`Clients::drop_kept`]
    /// takes.
    pub(super) fn kept(&self) -> (Client, u64) {
        let mut kept = self.kept.lock();
        if kept.is_elsewhere() {
            info!("The network or the clock changed: dropping the connections to the daemons");
            kept.renew();
        }
        (kept.client.clone(), kept.drops)
    }

    /// Drops the idle connections, unless that happened since [`Clients::kept`] returned `drops`.
    pub(super) fn drop_kept(&self, drops: u64) {
        let mut kept = self.kept.lock();
        if kept.drops == drops {
            kept.renew();
        }
    }

    /// Notes that a daemon answered from `address`.
    pub(super) fn note_address(&self, address: SocketAddr) {
        let mut kept = self.kept.lock();
        if kept.routes.len() < MAX_WATCHED {
            kept.routes
                .entry(address)
                .or_insert_with(|| local_address(address));
        }
    }
}

impl KeptClient {
    /// Returns whether the connections were made before a suspend, or in another network.
    fn is_elsewhere(&mut self) -> bool {
        let now = Clock::now();
        // Compared with the last request, not with the first one: over days, corrections add up.
        let before = std::mem::replace(&mut self.clock, now);
        if before.has_jumped(now) {
            return true;
        }
        let mut routes = self.routes.iter();
        routes.any(|(&daemon, &local)| local_address(daemon) != local)
    }

    /// Replaces the client by one without connections. Requests under way go on.
    fn renew(&mut self) {
        match build(|builder| builder) {
            Ok(client) => self.client = client,
            // The old connections still end at their own timeouts.
            Err(error) => warn!(%error, "Can't renew the HTTP client"),
        }
        self.drops += 1;
        // Filled again by the answers over new connections.
        self.routes.clear();
    }
}

impl Clock {
    fn now() -> Self {
        Self {
            wall: SystemTime::now(),
            awake: Instant::now(),
        }
    }

    fn has_jumped(self, now: Self) -> bool {
        let since_epoch = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let expected = since_epoch(self.wall) + now.awake.saturating_duration_since(self.awake);
        expected.abs_diff(since_epoch(now.wall)) > CLOCK_TOLERANCE
    }
}

/// Builds a client with the settings of all clients, and those that `configure` adds.
///
/// If this machine has no certificate authorities, the client knows none: plain HTTP needs none,
/// and a request over HTTPS says what is missing.
pub(super) fn build(
    configure: impl Fn(ClientBuilder) -> ClientBuilder,
) -> Result<Client, reqwest::Error> {
    let build = |builder: ClientBuilder| {
        let builder = builder
            .connect_timeout(CONNECT_TIMEOUT)
            .http1_only()
            .redirect(direct::redirects())
            .user_agent(concat!("cachewfs/", env!("CARGO_PKG_VERSION")));
        configure(builder).build()
    };
    build(Client::builder()).or_else(|error| {
        let without_authorities = build(Client::builder().tls_certs_only([]));
        without_authorities.map_err(|_| error)
    })
}

/// Returns the address of this machine from which packets to `daemon` would leave now, or `None` if
/// there is no route. Sends nothing.
pub(super) fn local_address(daemon: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match daemon {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // For UDP, to connect is to choose a route.
    socket.connect(daemon).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pretends that the machine slept for `slept` since the last request.
    fn sleep(clients: &Clients, slept: Duration) {
        clients.kept.lock().clock.wall -= slept;
    }

    #[test]
    fn after_a_suspend_no_old_connection_is_used() {
        let clients = Clients::new().unwrap();
        sleep(&clients, Duration::from_secs(1));
        assert_eq!(clients.kept().1, 0, "clocks are corrected");

        sleep(&clients, Duration::from_mins(1));

        assert_eq!(clients.kept().1, 1);
        assert_eq!(clients.kept().1, 1);
    }

    #[test]
    fn after_a_change_of_address_no_old_connection_is_used() {
        let clients = Clients::new().unwrap();
        let daemon = SocketAddr::from(([127, 0, 0, 1], 80));
        clients.note_address(daemon);
        assert_eq!(clients.kept().1, 0);

        // As it was before an interface went.
        let other = Some(IpAddr::from([192, 0, 2, 1]));
        clients.kept.lock().routes.insert(daemon, other);

        assert_eq!(clients.kept().1, 1);
        assert_eq!(clients.kept().1, 1);
    }

    #[test]
    fn one_dead_connection_drops_the_others_once() {
        let clients = Clients::new().unwrap();
        let (_, drops) = clients.kept();

        clients.drop_kept(drops);
        clients.drop_kept(drops);

        assert_eq!(clients.kept().1, 1);
    }
}
