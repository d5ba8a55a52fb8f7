//! The memory of requests that failed a moment ago.
//!
//! When a read fails, the kernel asks for the same page again at once: once more for `read`, twice
//! more for a page of a mapped file. Each of these requests would wait for a whole `read_timeout`
//! of its own. So a request that failed answers the requests of the next second, too.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::ReadError;

/// How long a failure is remembered. The kernel asks again within a millisecond. A person or a
/// program that tries again later deserves a new request.
const MEMORY: Duration = Duration::from_secs(1);

/// The recent failures of one segment.
#[derive(Debug, Default)]
pub(super) struct RecentFailures(Vec<Failure>);

#[derive(Debug)]
struct Failure {
    at: Instant,
    chunks: Range<usize>,
    error: ReadError,
}

impl RecentFailures {
    /// Notes that `chunks` could not be fetched.
    pub(super) fn note(&mut self, chunks: Range<usize>, error: ReadError) {
        self.0.retain(Failure::is_recent);
        self.0.push(Failure {
            at: Instant::now(),
            chunks,
            error,
        });
    }

    /// Notes that the table could not be fetched, and so no chunk.
    pub(super) fn note_table(&mut self, error: ReadError) {
        self.note(0..usize::MAX, error);
    }

    /// Returns the error of a recent request for `chunk`, or `None` if none failed.
    pub(super) fn of(&self, chunk: usize) -> Option<ReadError> {
        self.recent(|failure| failure.chunks.contains(&chunk))
    }

    /// Returns the error of a recent request for the table, or `None` if none failed.
    pub(super) fn of_table(&self) -> Option<ReadError> {
        self.recent(|failure| failure.chunks.end == usize::MAX)
    }

    fn recent(&self, is_wanted: impl Fn(&Failure) -> bool) -> Option<ReadError> {
        let failures = self.0.iter().rev();
        failures
            .filter(|failure| failure.is_recent())
            .find(|failure| is_wanted(failure))
            .map(|failure| failure.error.clone())
    }
}

impl Failure {
    fn is_recent(&self) -> bool {
        self.at.elapsed() < MEMORY
    }
}
