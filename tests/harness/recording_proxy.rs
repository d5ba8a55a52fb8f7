//! A proxy that records the requests of clients and the first lines of the answers.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::forward::{Forward, clone_handle};

/// A recording proxy on a free port of the loopback interface, for requests without a body.
#[derive(Debug)]
pub struct RecordingProxy {
    forward: Forward,
    record: Arc<Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// The bytes that clients sent, by connection.
    requests: Mutex<Vec<Vec<u8>>>,
    /// The status lines of the answers.
    answers: Mutex<Vec<String>>,
    answer_bytes: AtomicU64,
    delay_ms: AtomicU64,
}

impl RecordingProxy {
    /// Forwards to `target`.
    pub fn start(target: SocketAddr) -> Self {
        let record = Arc::new(Record::default());
        let for_connections = Arc::clone(&record);
        let forward = Forward::start(target, move |client, target| {
            let (from, to) = (clone_handle(client), clone_handle(target));
            let record = Arc::clone(&for_connections);
            std::thread::spawn(move || record.forward_requests(from, to));
            let (from, to) = (clone_handle(target), clone_handle(client));
            let record = Arc::clone(&for_connections);
            std::thread::spawn(move || record.forward_answers(from, to));
        });
        Self { forward, record }
    }

    /// Returns the proxy's base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.forward.address)
    }

    /// From now on, holds each request back for `delay`.
    pub fn delay_requests(&self, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.record.delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    /// Returns the heads of all requests so far, in lower case.
    pub fn requests(&self) -> Vec<String> {
        let requests = lock(&self.record.requests);
        let heads = requests.iter().flat_map(|bytes| {
            let text = String::from_utf8_lossy(bytes).to_lowercase();
            let heads = text.split("\r\n\r\n").map(str::to_owned);
            heads.filter(|head| !head.is_empty()).collect::<Vec<_>>()
        });
        heads.collect()
    }

    /// Returns how many answers so far had this status.
    pub fn count_answers(&self, status: u16) -> usize {
        let begin = format!("HTTP/1.1 {status} ");
        let answers = lock(&self.record.answers);
        answers
            .iter()
            .filter(|line| line.starts_with(&begin))
            .count()
    }

    /// Returns how many bytes of answers there were so far.
    pub fn answer_bytes(&self) -> u64 {
        self.record.answer_bytes.load(Ordering::Relaxed)
    }
}

impl Record {
    fn forward_requests(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 16 << 10];
        let connection = {
            let mut requests = lock(&self.requests);
            requests.push(Vec::new());
            requests.len() - 1
        };
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let piece = buffer.split_at_mut(count).0;
            if let Some(bytes) = lock(&self.requests).get_mut(connection) {
                bytes.extend_from_slice(piece);
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

    fn forward_answers(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let piece = buffer.split_at_mut(count).0;
            self.answer_bytes.fetch_add(count as u64, Ordering::Relaxed);
            // An answer always starts a new read: the client asks again only after its end.
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
