//! Accepts connections. TLS handshakes run concurrently, so that a slow one delays no other.
//!
//! A permit for the connection is taken before `accept`: beyond the limit, connections wait in the
//! kernel's backlog. The client's address is known only afterwards. If that address has its share
//! already, the new connection is closed.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::Tls;
use super::connection::Connection;
use crate::base::{Permit, Shares};

/// How long the listener waits after the system had no resources for a connection.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// At most this many TLS handshakes run at a time. Further connections wait in the kernel.
const MAX_HANDSHAKES: usize = 512;
/// At most this many handshakes of one address: a silent client must not delay all others.
const MAX_HANDSHAKES_PER_ADDRESS: usize = MAX_HANDSHAKES / 4;
/// The number of connections if the system doesn't limit open files.
const MAX_CONNECTIONS: u64 = 1 << 16;

/// The address of the client of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddress(pub(crate) SocketAddr);

/// A connection on which requests may arrive.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) connection: Connection,
    pub(super) address: SocketAddr,
    /// One of the permits for connections.
    pub(super) permit: Permit,
}

/// A listening socket, with TLS or without.
#[derive(Debug)]
pub(crate) struct Listener {
    tcp: TcpListener,
    connections: Shares,
    tls: Option<Handshakes>,
}

/// The TLS handshakes in progress.
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

    /// Returns the next connection, after its TLS handshake if there is one. Cancel-safe.
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
            // If a handshake ends first, this future is dropped. No connection is lost, because
            // accepting one is the last thing that it waits for.
            let next = async {
                let free = (handshakes.shares.free().await, connections.free().await);
                (free, accept(tcp).await)
            };
            tokio::select! {
                Some(ready) = handshakes.ready.recv() => return ready,
                ((handshake, connection), (stream, address)) = next => {
                    let ip = address.ip();
                    let handshake = handshake.and_then(|free| handshakes.shares.take(free, ip));
                    let connection = connection.and_then(|free| connections.take(free, ip));
                    match (handshake, connection) {
                        (Some(handshake), Some(connection)) => {
                            handshakes.begin(stream, address, (handshake, connection));
                        }
                        _ => refuse(address),
                    }
                }
            }
        }
    }
}

impl Handshakes {
    /// Starts a TLS handshake in a task of its own.
    fn begin(&self, stream: TcpStream, address: SocketAddr, (handshake, permit): (Permit, Permit)) {
        let (tls, sender) = (self.tls.clone(), self.sender.clone());
        tokio::spawn(async move {
            if let Some(connection) = tls.accept(stream).await {
                let accepted = Accepted {
                    connection,
                    address,
                    permit,
                };
                // Fails only if the listener is gone, because the daemon stops.
                sender.send(accepted).await.ok();
            }
            drop(handshake);
        });
    }
}

/// Returns half of the limit on open files: the answer on a connection may need an open file too.
fn max_connections() -> usize {
    let files = getrlimit(Resource::Nofile).current;
    usize::try_from(files.unwrap_or(2 * MAX_CONNECTIONS) / 2).unwrap_or(usize::MAX)
}

/// Logs the refusal. The caller drops the stream, which closes the connection.
fn refuse(address: SocketAddr) {
    let ip = address.ip();
    debug!(%address, "Closing a connection: {ip} has as many as one address may have");
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Without TCP_NODELAY, the end of an answer waits until the client acknowledges the
                // bytes before it. For a short range, this took 40 ms.
                drop(stream.set_nodelay(true));
                return (stream, address);
            }
            // The client closed the connection before it was accepted.
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
