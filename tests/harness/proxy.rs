//! A TCP proxy between mount and daemon that makes the network bad.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the proxy does to what the daemon sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Passes nothing on, and keeps connections open.
    Stall,
    /// Closes each connection after so many bytes.
    CutAfter(u64),
    /// Changes one byte in each so many.
    CorruptEvery(u64),
    /// Answers each request itself, with 503.
    Unavailable,
}

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// A proxy on a free port of the loopback interface.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    fault: Mutex<Fault>,
    is_ended: AtomicBool,
}

impl Proxy {
    /// Passes on to `target`.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            fault: Mutex::new(Fault::None),
            is_ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &accepting));
        Self { address, shared }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on the network has this fault.
    pub fn set(&self, fault: Fault) {
        *self
            .shared
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_ended.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        TcpStream::connect(self.address).ok();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.is_ended.load(Ordering::Relaxed) {
            return;
        }
        let (Ok(client), Ok(daemon)) = (client, TcpStream::connect(shared.target)) else {
            continue;
        };
        let (Ok(client_input), Ok(daemon_input)) = (client.try_clone(), daemon.try_clone()) else {
            continue;
        };
        let (up, down) = (Arc::clone(shared), Arc::clone(shared));
        std::thread::spawn(move || up.pump(client_input, daemon, false));
        std::thread::spawn(move || down.pump(daemon_input, client, true));
    }
}

impl Shared {
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, is_answer: bool) {
        let mut buffer = vec![0; 64 << 10];
        let mut passed = 0;
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let Some(mut piece) = buffer.get_mut(..count) else {
                break;
            };
            let fault = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
            let mut is_last = false;
            match fault {
                Fault::CutAfter(most) if is_answer && passed + count as u64 > most => {
                    let left = usize::try_from(most.saturating_sub(passed)).unwrap_or(0);
                    piece = piece.split_at_mut(left.min(count)).0;
                    is_last = true;
                }
                Fault::CorruptEvery(every) if is_answer => {
                    let next = usize::try_from(every - passed % every).unwrap_or(usize::MAX);
                    if let Some(byte) = piece.get_mut(next) {
                        *byte ^= 0x20;
                    }
                }
                Fault::Unavailable if !is_answer => {
                    if from.write_all(UNAVAILABLE).is_err() {
                        break;
                    }
                    continue;
                }
                Fault::Stall => {
                    self.wait_for_the_end_of_the_stall();
                }
                _ => {}
            }
            passed += piece.len() as u64;
            if to.write_all(piece).is_err() || is_last {
                break;
            }
        }
        to.shutdown(Shutdown::Both).ok();
        from.shutdown(Shutdown::Both).ok();
    }

    fn wait_for_the_end_of_the_stall(&self) {
        while *self.fault.lock().unwrap_or_else(PoisonError::into_inner) == Fault::Stall
            && !self.is_ended.load(Ordering::Relaxed)
        {
            crate::wait::pause();
        }
    }
}
