//! A TCP proxy that injects faults into the connections between a client and a server.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::forward::{Forward, clone_handle};

/// A fault that the proxy injects. "The server" is the daemon, or S3 in tests that put the proxy
/// there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Forwards everything unchanged.
    None,
    /// Forwards nothing, in either direction, and keeps connections open.
    Stall,
    /// Forwards no request with this text in its head. Requests in other connections pass.
    StallRequests(&'static str),
    /// Closes each connection after this many bytes from the server.
    CutAfter(u64),
    /// Changes bytes from the server: those whose offset in the connection is a multiple of this
    /// number, but at most one in each read of the proxy.
    CorruptEvery(u64),
    /// Changes bytes to the server as [`Self::CorruptEvery`] does, but none in a read that has the
    /// head of a request in it. So the server receives valid requests with wrong bodies. If a
    /// connection is reused, a head may come at any offset.
    CorruptSentEvery(u64),
    /// Answers each request with 503, in the server's place.
    Unavailable,
    /// Answers each request in the server's place, with this status and an S3 error with this code.
    Refused(u16, &'static str),
}

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// Returns the answer of [`Fault::Refused`], after which the proxy closes the connection.
fn refusal(status: u16, code: &str) -> String {
    let body = format!("<Error><Code>{code}</Code><Message>by the proxy</Message></Error>");
    let len = body.len();
    format!("HTTP/1.1 {status} No\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}")
}

/// A proxy on a free port, with one fault at a time for all its connections.
#[derive(Debug)]
pub struct Proxy {
    fault: Arc<CurrentFault>,
    forward: Forward,
}

#[derive(Debug)]
struct CurrentFault {
    fault: Mutex<Fault>,
    connections: AtomicU64,
    /// Connections with a smaller number pass nothing on.
    silent_below: AtomicU64,
}

impl Proxy {
    /// Listens on the loopback interface and forwards to `target`, without a fault at first.
    pub fn start(target: SocketAddr) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), target)
    }

    /// Forwards as [`Self::start`] does, but listens on the address `listen` of this machine. With
    /// port 0, any free port will do.
    pub fn start_at(listen: SocketAddr, target: SocketAddr) -> Self {
        let fault = Arc::new(CurrentFault {
            fault: Mutex::new(Fault::None),
            connections: AtomicU64::new(0),
            silent_below: AtomicU64::new(0),
        });
        let current = Arc::clone(&fault);
        let forward = Forward::start_at(listen, target, move |client, daemon| {
            let number = current.connections.fetch_add(1, Ordering::Relaxed);
            for (from, to, is_answer) in [(client, daemon, false), (daemon, client, true)] {
                let (from, to, fault) =
                    (clone_handle(from), clone_handle(to), Arc::clone(&current));
                std::thread::spawn(move || fault.pump(from, to, (number, is_answer)));
            }
        });
        Self { fault, forward }
    }

    /// Returns the proxy's base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.forward.address)
    }

    /// Returns the address that the proxy listens on.
    pub fn address(&self) -> SocketAddr {
        self.forward.address
    }

    /// Injects `fault` from now on, also into open connections.
    pub fn set(&self, fault: Fault) {
        self.fault.set(fault);
    }

    /// From now on, the connections that there are pass nothing on; new ones do.
    pub fn silence_connections(&self) {
        let connections = self.fault.connections.load(Ordering::Relaxed);
        let silent_below = &self.fault.silent_below;
        silent_below.store(connections, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.fault.silent_below.store(0, Ordering::Relaxed);
        // Wakes the threads that a stall keeps waiting.
        self.set(Fault::None);
    }
}

impl CurrentFault {
    fn get(&self) -> Fault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, (number, is_answer): (u64, bool)) {
        let mut buffer = vec![0; 64 << 10];
        let mut passed = 0;
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let Some(mut piece) = buffer.get_mut(..count) else {
                break;
            };
            let mut is_last = false;
            // Bytes that a stall held back meet the fault that comes after it.
            while number < self.silent_below.load(Ordering::Relaxed) || self.get() == Fault::Stall {
                crate::wait::pause();
            }
            match self.get() {
                fault @ Fault::StallRequests(text) if !is_answer && contains(piece, text) => {
                    while self.get() == fault {
                        crate::wait::pause();
                    }
                }
                Fault::CutAfter(limit) if is_answer && passed + count as u64 > limit => {
                    let left = usize::try_from(limit.saturating_sub(passed)).unwrap_or(0);
                    piece = piece.split_at_mut(left.min(count)).0;
                    is_last = true;
                }
                Fault::CorruptEvery(every) if is_answer => corrupt(piece, passed, every),
                Fault::CorruptSentEvery(every) if !is_answer && !has_head(piece) => {
                    corrupt(piece, passed, every);
                }
                Fault::Refused(status, code) if !is_answer => {
                    from.write_all(refusal(status, code).as_bytes()).ok();
                    break;
                }
                Fault::Unavailable if !is_answer => {
                    if from.write_all(UNAVAILABLE).is_err() {
                        break;
                    }
                    // The connection stays open for the next request.
                    continue;
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
}

/// Returns whether `piece` contains the head of a request.
fn has_head(piece: &[u8]) -> bool {
    contains(piece, " HTTP/1.1\r\n")
}

fn contains(piece: &[u8], text: &str) -> bool {
    piece
        .windows(text.len())
        .any(|bytes| bytes == text.as_bytes())
}

/// Changes the first byte of `piece` whose offset in the connection is a multiple of `every`,
/// unless it is the first of `piece`. `passed` is the offset of `piece`.
fn corrupt(piece: &mut [u8], passed: u64, every: u64) {
    let next = usize::try_from(every - passed % every).unwrap_or(usize::MAX);
    if let Some(byte) = piece.get_mut(next) {
        *byte ^= 0x20;
    }
}
