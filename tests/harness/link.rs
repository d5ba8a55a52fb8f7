//! A slow link between two programs: all connections share one bandwidth, and each byte has a
//! delay.
//!
//! ```text
//! read from sender ─► wait for the bandwidth ─► queue ─► wait for the delay ─► write to receiver
//!                    (shared by all; answers only)      (half a round trip)
//! ```
//!
//! The link is in this process, not in the kernel (`tc netem`): so benchmarks need no privileges
//! and no network namespace. The price: TCP's slow start, which costs time on a real line, is not
//! simulated.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::forward::{Forward, clone_handle};

/// How many pieces a busy link forwards in a second: one in 0.7 ms.
const PIECES_PER_SECOND: u64 = 1500;
/// At least this many bytes are in a full piece: with many small pieces, a benchmark would measure
/// this program instead of the link.
const MIN_PIECE_BYTES: usize = 16 << 10;
/// At most this many bytes are in a piece.
const MAX_PIECE_BYTES: usize = 256 << 10;
/// At most this many bytes are in flight in one connection and direction. A fast line with a long
/// delay (bandwidth times delay) holds less, so this limit never slows it down.
const BYTES_IN_FLIGHT: usize = 4 << 20;

/// A slow link that listens on a free port of the loopback interface.
#[derive(Debug)]
pub struct Link {
    forward: Forward,
    state: Arc<LinkState>,
}

/// Some bytes, and when they arrive at the other end.
type Piece = (Instant, Vec<u8>);

/// The state that all connections of a link share.
#[derive(Debug)]
struct LinkState {
    bytes_per_second: u64,
    /// The time from one end to the other.
    delay: Duration,
    /// When the last byte of all answers so far has been put on the line.
    free_at: Mutex<Instant>,
    answer_bytes: AtomicU64,
}

impl Link {
    /// Forwards connections to `target`. Only answers use up the bandwidth: requests are short. The
    /// delays of a request and its answer add up to `round_trip`.
    pub fn start(target: SocketAddr, bytes_per_second: u64, round_trip: Duration) -> Self {
        let state = Arc::new(LinkState {
            bytes_per_second,
            delay: round_trip / 2,
            free_at: Mutex::new(Instant::now()),
            answer_bytes: AtomicU64::new(0),
        });
        let for_connections = Arc::clone(&state);
        let forward = Forward::start(target, move |client, target| {
            let state = &for_connections;
            let (from, to) = (clone_handle(client), clone_handle(target));
            carry(state, from, to, LinkState::send_request);
            let (from, to) = (clone_handle(target), clone_handle(client));
            carry(state, from, to, LinkState::send_answer);
        });
        Self { forward, state }
    }

    /// Returns the address that the link listens on.
    pub fn address(&self) -> SocketAddr {
        self.forward.address
    }

    /// Returns how many bytes of answers the target has sent so far.
    pub fn answer_bytes(&self) -> u64 {
        self.state.answer_bytes.load(Ordering::Relaxed)
    }
}

/// Carries bytes in one direction: `send` reads them on one thread and queues them with their time
/// of arrival, and a second thread writes them at that time.
fn carry(
    state: &Arc<LinkState>,
    from: TcpStream,
    to: TcpStream,
    send: fn(&LinkState, TcpStream, &SyncSender<Piece>),
) {
    let (pieces, arriving) = sync_channel(BYTES_IN_FLIGHT / state.piece_bytes());
    let state = Arc::clone(state);
    std::thread::spawn(move || send(&state, from, &pieces));
    std::thread::spawn(move || deliver(&arriving, to));
}

fn deliver(arriving: &Receiver<Piece>, mut to: TcpStream) {
    for (due, piece) in arriving {
        wait_until(due);
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}

impl LinkState {
    fn send_request(&self, mut from: TcpStream, pieces: &SyncSender<Piece>) {
        // The handshake of TCP takes a round trip, which the first bytes of a connection wait for.
        let mut extra = self.delay * 2;
        let mut buffer = vec![0; self.piece_bytes()];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let piece = buffer.iter().take(count).copied().collect();
            if pieces
                .send((Instant::now() + self.delay + extra, piece))
                .is_err()
            {
                return;
            }
            extra = Duration::ZERO;
        }
    }

    fn send_answer(&self, mut from: TcpStream, pieces: &SyncSender<Piece>) {
        let mut buffer = vec![0; self.piece_bytes()];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            self.answer_bytes.fetch_add(count as u64, Ordering::Relaxed);
            let sent_at = self.use_bandwidth(count);
            wait_until(sent_at);
            let piece = buffer.iter().take(count).copied().collect();
            if pieces.send((sent_at + self.delay, piece)).is_err() {
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

    /// Reserves the line for `count` bytes behind all earlier answers. Returns when the last of
    /// these bytes has been put on the line.
    fn use_bandwidth(&self, count: usize) -> Instant {
        let takes = Duration::from_secs_f64(count as f64 / self.bytes_per_second as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = (*free_at).max(Instant::now()) + takes;
        *free_at
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "delaying bytes is the purpose of a link"
)]
fn wait_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}
