//! A TCP proxy between mount and daemon that makes the network bad.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use crate::forward::{Forward, clone_handle};

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
struct CurrentFault(Mutex<Fault>);

impl Proxy {
    /// Passes on to `target`.
    pub fn start(target: SocketAddr) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, target)
    }

    /// The same, on a free port of another address of this machine.
    pub fn start_at(listen: Ipv4Addr, target: SocketAddr) -> Self {
        let fault = Arc::new(CurrentFault(Mutex::new(Fault::None)));
        let current = Arc::clone(&fault);
        let forward = Forward::start_at(listen, target, move |client, daemon| {
            for (from, to, is_answer) in [(client, daemon, false), (daemon, client, true)] {
                let (from, to, fault) =
                    (clone_handle(from), clone_handle(to), Arc::clone(&current));
                std::thread::spawn(move || fault.pump(from, to, is_answer));
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
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Nobody waits any more for a stall to end.
        self.set(Fault::None);
    }
}

impl CurrentFault {
    fn get(&self) -> Fault {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, fault: Fault) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, is_answer: bool) {
        let mut buffer = vec![0; 64 << 10];
        let mut passed = 0;
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let Some(mut piece) = buffer.get_mut(..count) else {
                break;
            };
            let mut is_last = false;
            match self.get() {
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
    let mark = b" HTTP/1.1\r\n";
    piece.windows(mark.len()).any(|bytes| bytes == mark)
}

/// Changes a byte of each `every`, after so many that `passed`.
fn corrupt(piece: &mut [u8], passed: u64, every: u64) {
    let next = usize::try_from(every - passed % every).unwrap_or(usize::MAX);
    if let Some(byte) = piece.get_mut(next) {
        *byte ^= 0x20;
    }
}
