//! A slow link between two programs: a rate that all connections share, and a delay.
//!
//! Done here and not by the kernel, so that measuring takes no privileges and no network of its own;
//! the price is that TCP's slow start, which a real line adds, isn't there for anyone.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::forward::{Forward, clone_handle};

/// Passed on at a time is what takes a part of a second, 0.7 ms, but no less and no more than these: many small
/// pieces would measure this program.
const PIECES_PER_SECOND: u64 = 1500;
const MIN_PIECE_BYTES: usize = 16 << 10;
const MAX_PIECE_BYTES: usize = 256 << 10;
/// On the way in one connection, in bytes: more than a fast line with a long delay holds.
const BYTES_UNDER_WAY: usize = 4 << 20;

/// A link on a free port of the loopback interface.
#[derive(Debug)]
pub struct Link {
    forward: Forward,
    shared: Arc<Shared>,
}

/// Some bytes, and when they are there.
type Piece = (Instant, Vec<u8>);

#[derive(Debug)]
struct Shared {
    bytes_per_second: u64,
    /// In each direction.
    delay: Duration,
    /// When what was sent so far has left.
    free_at: Mutex<Instant>,
    bytes: AtomicU64,
}

impl Link {
    /// Passes on to `target`; answers come at this rate, and `round_trip` after they could.
    pub fn start(target: SocketAddr, bytes_per_second: u64, round_trip: Duration) -> Self {
        let shared = Arc::new(Shared {
            bytes_per_second,
            delay: round_trip / 2,
            free_at: Mutex::new(Instant::now()),
            bytes: AtomicU64::new(0),
        });
        let carried = Arc::clone(&shared);
        let forward = Forward::start(target, move |client, target| {
            carry(
                &carried,
                clone_handle(client),
                clone_handle(target),
                Shared::send_request,
            );
            carry(
                &carried,
                clone_handle(target),
                clone_handle(client),
                Shared::send_answer,
            );
        });
        Self { forward, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.forward.address
    }

    /// Bytes that came from the target so far.
    pub fn answer_bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }
}

/// Carries bytes one way: a thread puts them on the line, another takes them off when they are due.
fn carry(
    shared: &Arc<Shared>,
    from: TcpStream,
    to: TcpStream,
    send: fn(&Shared, TcpStream, &SyncSender<Piece>),
) {
    let (line, end) = sync_channel(BYTES_UNDER_WAY / shared.piece_bytes());
    let shared = Arc::clone(shared);
    std::thread::spawn(move || send(&shared, from, &line));
    std::thread::spawn(move || deliver(&end, to));
}

fn deliver(end: &Receiver<Piece>, mut to: TcpStream) {
    for (due, piece) in end {
        wait_until(due);
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}

impl Shared {
    fn send_request(&self, mut from: TcpStream, line: &SyncSender<Piece>) {
        // A connection takes a round trip to make.
        let mut extra = self.delay * 2;
        let mut buffer = vec![0; self.piece_bytes()];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let piece = buffer.iter().take(count).copied().collect();
            if line
                .send((Instant::now() + self.delay + extra, piece))
                .is_err()
            {
                return;
            }
            extra = Duration::ZERO;
        }
    }

    fn send_answer(&self, mut from: TcpStream, line: &SyncSender<Piece>) {
        let mut buffer = vec![0; self.piece_bytes()];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            self.bytes.fetch_add(count as u64, Ordering::Relaxed);
            let left = self.leave(count);
            wait_until(left);
            let piece = buffer.iter().take(count).copied().collect();
            if line.send((left + self.delay, piece)).is_err() {
                return;
            }
        }
    }

    fn piece_bytes(&self) -> usize {
        let bytes = usize::try_from(self.bytes_per_second / PIECES_PER_SECOND);
        bytes.map_or(MAX_PIECE_BYTES, |bytes| {
            bytes.clamp(MIN_PIECE_BYTES, MAX_PIECE_BYTES)
        })
    }

    /// When so many bytes have left, after all that was sent before.
    fn leave(&self, count: usize) -> Instant {
        let takes = Duration::from_secs_f64(count as f64 / self.bytes_per_second as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = (*free_at).max(Instant::now()) + takes;
        *free_at
    }
}

#[expect(clippy::disallowed_methods, reason = "the delay is what this is for")]
fn wait_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}
