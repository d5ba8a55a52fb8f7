//! Accepts connections. Handshakes run beside each other, so that a slow one holds up nobody.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::Tls;
use super::connection::Connection;
use crate::shares::{Permit, Shares};

/// How long nothing is accepted after the system had no room for a connection.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// So many clients may be agreeing on TLS; more wait where the kernel keeps them.
const MAX_HANDSHAKES: usize = 512;
/// So many of them from one address: who says nothing must not hold up all others.
const MAX_HANDSHAKES_PER_ADDRESS: usize = MAX_HANDSHAKES / 4;
/// Connections where the system has no limit on open files.
const MAX_CONNECTIONS: u64 = 1 << 16;

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddress(pub(crate) SocketAddr);

/// A connection that requests may come on.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) connection: Connection,
    pub(super) address: SocketAddr,
    /// Among all connections.
    pub(super) permit: Permit,
}

/// Accepts connections, with TLS or without.
#[derive(Debug)]
pub(crate) struct Listener {
    tcp: TcpListener,
    connections: Shares,
    tls: Option<Handshakes>,
}

/// Connections whose clients are agreeing on TLS.
#[derive(Debug)]
struct Handshakes {
    tls: Tls,
    shares: Shares,
    sender: mpsc::Sender<Accepted>,
    ready: mpsc::Receiver<Accepted>,
}

impl Listener {
    pub(crate) fn new(tcp: TcpListener, tls: Option<Tls>) -> Self {
        let tls = tls.map(|tls| {
            let (sender, ready) = mpsc::channel(MAX_HANDSHAKES);
            Handshakes {
                tls,
                shares: Shares::new(MAX_HANDSHAKES, MAX_HANDSHAKES_PER_ADDRESS),
                sender,
                ready,
            }
        });
        let connections = max_connections();
        Self {
            tcp,
            connections: Shares::new(connections, connections / 2),
            tls,
        }
    }

    /// The next connection, once its client has agreed on TLS. May be dropped and asked again.
    pub(super) async fn accept(&mut self) -> Accepted {
        let Self {
            tcp,
            connections,
            tls,
        } = self;
        let Some(handshakes) = tls else {
            loop {
                let free = connections.free().await;
                let (stream, address) = accept(tcp).await;
                let permit = free.and_then(|free| connections.take(free, address.ip()));
                if let Some(permit) = permit {
                    return Accepted {
                        connection: Connection::Plain(stream),
                        address,
                        permit,
                    };
                }
                refuse(address);
            }
        };
        loop {
            let next = async {
                let free = (handshakes.shares.free().await, connections.free().await);
                (free, accept(tcp).await)
            };
            tokio::select! {
                Some(ready) = handshakes.ready.recv() => return ready,
                ((handshake, permit), (stream, address)) = next => {
                    let handshake = handshake.and_then(|free| handshakes.shares.take(free, address.ip()));
                    let permit = permit.and_then(|free| connections.take(free, address.ip()));
                    match (handshake, permit) {
                        (Some(handshake), Some(permit)) => handshakes.begin(stream, address, (handshake, permit)),
                        _ => refuse(address),
                    }
                }
            }
        }
    }
}

impl Handshakes {
    /// Agrees with a client on TLS, which takes the time it takes.
    fn begin(&self, stream: TcpStream, address: SocketAddr, (handshake, permit): (Permit, Permit)) {
        let (tls, sender) = (self.tls.clone(), self.sender.clone());
        tokio::spawn(async move {
            if let Some(connection) = tls.accept(stream).await {
                let accepted = Accepted {
                    connection,
                    address,
                    permit,
                };
                // Nobody waits for it any more when the daemon stops.
                sender.send(accepted).await.ok();
            }
            drop(handshake);
        });
    }
}

/// Half of the files that the daemon may have open: a connection's answer may take one, too.
fn max_connections() -> usize {
    let files = getrlimit(Resource::Nofile).current;
    usize::try_from(files.unwrap_or(2 * MAX_CONNECTIONS) / 2).unwrap_or(usize::MAX)
}

/// The connection is closed as it is dropped.
fn refuse(address: SocketAddr) {
    debug!(%address, "{} has its share of connections", address.ip());
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // The end of an answer must not wait until the client acknowledges what came before
                // it: that took 40 ms of each short range.
                drop(stream.set_nodelay(true));
                return (stream, address);
            }
            // The client is gone already.
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                warn!(%error, "Can't accept a connection");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}
