//! Forwards TCP connections to another address. Proxies use it to delay, record or damage the
//! bytes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A listener on a free port. It forwards its connections until it is dropped.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) address: SocketAddr,
    is_stopped: Arc<AtomicBool>,
}

impl Forward {
    /// Listens on the loopback interface. Connects each client to `target`, and passes both sockets
    /// to `carry`, which must not block: the thread that accepts connections calls it.
    pub(crate) fn start(
        target: SocketAddr,
        carry: impl Fn(&TcpStream, &TcpStream) + Send + 'static,
    ) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), target, carry)
    }

    /// Forwards as [`Self::start`] does, but listens on `listen`.
    pub(crate) fn start_at(
        listen: SocketAddr,
        target: SocketAddr,
        carry: impl Fn(&TcpStream, &TcpStream) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(listen).unwrap();
        let address = listener.local_addr().unwrap();
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&is_stopped);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), Ok(target)) = (client, TcpStream::connect(target)) else {
                    continue;
                };
                client.set_nodelay(true).ok();
                target.set_nodelay(true).ok();
                carry(&client, &target);
            }
        });
        Self {
            address,
            is_stopped,
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, so that it sees the flag.
        TcpStream::connect(self.address).ok();
    }
}

/// Returns a second handle of the connection `stream`.
pub(crate) fn clone_handle(stream: &TcpStream) -> TcpStream {
    stream.try_clone().unwrap()
}
