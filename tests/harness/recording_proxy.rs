//! A proxy that writes down what clients ask and how they are answered.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::forward::{Forward, clone_handle};

/// A proxy on a free port of the loopback interface, for requests without a body.
#[derive(Debug)]
pub struct RecordingProxy {
    forward: Forward,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// What came in each connection.
    asked: Mutex<Vec<Vec<u8>>>,
    /// The first lines of answers.
    answers: Mutex<Vec<String>>,
    answered_bytes: AtomicU64,
    delay_ms: AtomicU64,
}

impl RecordingProxy {
    /// Passes on to `target`.
    pub fn start(target: SocketAddr) -> Self {
        let seen = Arc::new(Seen::default());
        let carried = Arc::clone(&seen);
        let forward = Forward::start(target, move |client, target| {
            let (from, to, seen) = (
                clone_handle(client),
                clone_handle(target),
                Arc::clone(&carried),
            );
            std::thread::spawn(move || seen.pass_requests(from, to));
            let (from, to, seen) = (
                clone_handle(target),
                clone_handle(client),
                Arc::clone(&carried),
            );
            std::thread::spawn(move || seen.pass_answers(from, to));
        });
        Self { forward, seen }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.forward.address)
    }

    /// From now on requests are held back for so long.
    pub fn delay_requests(&self, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.seen.delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    /// The heads of all requests so far, in lower case.
    pub fn requests(&self) -> Vec<String> {
        let asked = lock(&self.seen.asked);
        let heads = asked.iter().flat_map(|bytes| {
            let text = String::from_utf8_lossy(bytes).to_lowercase();
            let heads = text.split("\r\n\r\n").map(str::to_owned);
            heads.filter(|head| !head.is_empty()).collect::<Vec<_>>()
        });
        heads.collect()
    }

    /// How many answers so far have this status.
    pub fn count_answers(&self, status: u16) -> usize {
        let begin = format!("HTTP/1.1 {status} ");
        let answers = lock(&self.seen.answers);
        answers
            .iter()
            .filter(|line| line.starts_with(&begin))
            .count()
    }

    /// Bytes of answers so far.
    pub fn answer_bytes(&self) -> u64 {
        self.seen.answered_bytes.load(Ordering::Relaxed)
    }
}

impl Seen {
    fn pass_requests(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 16 << 10];
        let mine = {
            let mut asked = lock(&self.asked);
            asked.push(Vec::new());
            asked.len() - 1
        };
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let piece = buffer.split_at_mut(count).0;
            if let Some(asked) = lock(&self.asked).get_mut(mine) {
                asked.extend_from_slice(piece);
            }
            let delay = Duration::from_millis(self.delay_ms.load(Ordering::Relaxed));
            let due = Instant::now() + delay;
            while Instant::now() < due {
                crate::wait::pause();
            }
            if to.write_all(piece).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Both).ok();
    }

    fn pass_answers(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let piece = buffer.split_at_mut(count).0;
            self.answered_bytes
                .fetch_add(count as u64, Ordering::Relaxed);
            if piece.starts_with(b"HTTP/1.1 ") {
                let line = piece.split(|&byte| byte == b'\r').next();
                let line = String::from_utf8_lossy(line.unwrap_or_default());
                lock(&self.answers).push(line.into_owned());
            }
            if to.write_all(piece).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Both).ok();
        from.shutdown(Shutdown::Both).ok();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
