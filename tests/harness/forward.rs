//! Connections that are passed on to another address, by whoever wants to spoil them on the way.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A free port of the loopback interface whose connections are passed on until this is dropped.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) address: SocketAddr,
    is_ended: Arc<AtomicBool>,
}

impl Forward {
    /// Connects each client to `target`, and gives both ends to `carry`, which mustn't wait.
    pub(crate) fn start(
        target: SocketAddr,
        carry: impl Fn(&TcpStream, &TcpStream) + Send + 'static,
    ) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, target, carry)
    }

    /// The same, on a free port of another address of this machine.
    pub(crate) fn start_at(
        listen: Ipv4Addr,
        target: SocketAddr,
        carry: impl Fn(&TcpStream, &TcpStream) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((listen, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let is_ended = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&is_ended);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
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
        Self { address, is_ended }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.is_ended.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        TcpStream::connect(self.address).ok();
    }
}

/// Another handle of the same connection.
pub(crate) fn clone_handle(stream: &TcpStream) -> TcpStream {
    stream.try_clone().unwrap()
}
