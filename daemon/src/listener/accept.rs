//! Accepts connections. Handshakes run beside each other, so that a slow one holds up nobody.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tracing::warn;

use super::Tls;
use super::connection::Connection;

/// How long nothing is accepted after the system had no room for a connection.
const PAUSE: Duration = Duration::from_millis(100);
/// So many clients may be agreeing on TLS; more wait where the kernel keeps them.
const MAX_HANDSHAKES: usize = 512;

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddress(pub(crate) SocketAddr);

impl Connected<IncomingStream<'_, Listener>> for ClientAddress {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Accepts connections, with TLS or without.
#[derive(Debug)]
pub(crate) struct Listener {
    tcp: TcpListener,
    tls: Option<Handshakes>,
}

/// Connections whose clients are agreeing on TLS.
#[derive(Debug)]
struct Handshakes {
    tls: Tls,
    turns: Arc<Semaphore>,
    sender: mpsc::Sender<(Connection, SocketAddr)>,
    ready: mpsc::Receiver<(Connection, SocketAddr)>,
}

impl Listener {
    pub(crate) fn new(tcp: TcpListener, tls: Option<Tls>) -> Self {
        let tls = tls.map(|tls| {
            let (sender, ready) = mpsc::channel(MAX_HANDSHAKES);
            Handshakes {
                tls,
                turns: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
                sender,
                ready,
            }
        });
        Self { tcp, tls }
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let Some(handshakes) = &mut self.tls else {
            let (stream, address) = accept(&self.tcp).await;
            return (Connection::Plain(stream), address);
        };
        loop {
            let next = async {
                let turn = Arc::clone(&handshakes.turns).acquire_owned().await;
                (turn, accept(&self.tcp).await)
            };
            tokio::select! {
                Some(ready) = handshakes.ready.recv() => return ready,
                (turn, (stream, address)) = next => {
                    let (tls, sender) = (handshakes.tls.clone(), handshakes.sender.clone());
                    tokio::spawn(async move {
                        if let Some(connection) = tls.accept(stream).await {
                            // Nobody waits for it any more when the daemon stops.
                            sender.send((connection, address)).await.ok();
                        }
                        drop(turn);
                    });
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
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
                tokio::time::sleep(PAUSE).await;
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
