//! A TCP proxy between mount and daemon that makes the network bad.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::forward::{Forward, same};

/// What the proxy does to what the daemon sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Passes nothing on, and keeps connections open.
    Stall,
    /// Passes on no request with this text in its head. Others pass, in other connections.
    StallRequests(&'static str),
    /// Closes each connection after so many bytes.
    CutAfter(u64),
    /// Changes one byte in each so many.
    CorruptEvery(u64),
    /// Changes one byte in each so many of bodies that are sent to the daemon, or to another server in its
    /// place. The heads of requests stay as they are: a connection that was used before may have one anywhere.
    CorruptSentEvery(u64),
    /// Answers each request itself, with 503.
    Unavailable,
    /// The same, with this status and as S3 does: with this code.
    Refused(u16, &'static str),
}

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// The whole answer; the connection ends with it.
fn refusal(status: u16, code: &str) -> String {
    let body = format!("<Error><Code>{code}</Code><Message>by the proxy</Message></Error>");
    let len = body.len();
    format!("HTTP/1.1 {status} No\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}")
}

/// A proxy on a free port of the loopback interface.
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
    /// Passes on to `target`.
    pub fn start(target: SocketAddr) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, target)
    }

    /// The same, on a free port of another address of this machine.
    pub fn start_at(listen: Ipv4Addr, target: SocketAddr) -> Self {
        let fault = Arc::new(CurrentFault {
            fault: Mutex::new(Fault::None),
            connections: AtomicU64::new(0),
            silent_below: AtomicU64::new(0),
        });
        let current = Arc::clone(&fault);
        let forward = Forward::start_at(listen, target, move |client, daemon| {
            let number = current.connections.fetch_add(1, Ordering::Relaxed);
            for (from, to, is_answer) in [(client, daemon, false), (daemon, client, true)] {
                let (from, to, fault) = (same(from), same(to), Arc::clone(&current));
                std::thread::spawn(move || fault.pump(from, to, (number, is_answer)));
            }
        });
        Self { fault, forward }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.forward.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.forward.address
    }

    /// From now on the network has this fault.
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
        // Nobody waits any more for a stall to end.
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
            while number < self.silent_below.load(Ordering::Relaxed) {
                crate::wait::pause();
            }
            match self.get() {
                fault @ Fault::StallRequests(text) if !is_answer && contains(piece, text) => {
                    while self.get() == fault {
                        crate::wait::pause();
                    }
                }
                Fault::CutAfter(most) if is_answer && passed + count as u64 > most => {
                    let left = usize::try_from(most.saturating_sub(passed)).unwrap_or(0);
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
                    continue;
                }
                Fault::Stall => {
                    while self.get() == Fault::Stall {
                        crate::wait::pause();
                    }
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

/// Whether the head of a request is in `piece`.
fn has_head(piece: &[u8]) -> bool {
    contains(piece, " HTTP/1.1\r\n")
}

fn contains(piece: &[u8], text: &str) -> bool {
    piece
        .windows(text.len())
        .any(|bytes| bytes == text.as_bytes())
}

/// Changes a byte of each `every`, after so many that `passed`.
fn corrupt(piece: &mut [u8], passed: u64, every: u64) {
    let next = usize::try_from(every - passed % every).unwrap_or(usize::MAX);
    if let Some(byte) = piece.get_mut(next) {
        *byte ^= 0x20;
    }
}
