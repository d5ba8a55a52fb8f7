//! The last failure of the cache's disk: logged once, and shown by `cachewfs status`.
//!
//! A mount reads on without its cache. So each read would fail to open or to write a file, and each
//! would log the same line.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{info, warn};

use crate::lasting_failure::LastingFailure;

/// How long the last failure must be past before a success ends it. On a full disk some writes
/// succeed between others that fail.
const CALM: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 60 });

/// The present failure of the cache's disk, if there is one.
#[derive(Debug, Default)]
pub(crate) struct CacheFailures {
    /// Whether there is a failure. A success looks only at this, because every stored chunk is one.
    has_failed: AtomicBool,
    present: Mutex<Option<CacheFailure>>,
}

/// A failure of the cache's disk that has lasted since its first occurrence.
#[derive(Clone, Debug)]
pub(crate) struct CacheFailure {
    /// The error of the last occurrence.
    pub(crate) error: Arc<io::Error>,
    pub(crate) failure: LastingFailure,
    last_at: Instant,
}

impl CacheFailures {
    /// Notes that a file of the cache could not be opened or written.
    pub(crate) fn note(&self, error: io::Error) {
        let mut present = self.present.lock();
        let same = |known: &&CacheFailure| known.error.kind() == error.kind();
        let known = present.as_ref().filter(same);
        if known.is_none() {
            warn!(
                error = &error as &dyn std::error::Error,
                "Can't use the cache, reading on without it: {error}"
            );
        }
        *present = Some(CacheFailure {
            failure: LastingFailure::after(known.map(|known| &known.failure), error.to_string()),
            error: Arc::new(error),
            last_at: Instant::now(),
        });
        self.has_failed.store(true, Ordering::Release);
    }

    /// Notes that a chunk was written. Ends a failure that has not occurred for a while.
    pub(crate) fn note_success(&self) {
        if !self.has_failed.load(Ordering::Acquire) {
            return;
        }
        let mut present = self.present.lock();
        if present
            .take_if(|known| known.last_at.elapsed() >= CALM)
            .is_some()
        {
            self.has_failed.store(false, Ordering::Release);
            info!("The cache can be used again");
        }
    }

    /// Returns the present failure, or `None` if the cache can be written.
    pub(crate) fn present(&self) -> Option<CacheFailure> {
        let present = self.present.lock();
        present.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_lasts_from_its_first_occurrence_to_the_next_success() {
        let failures = CacheFailures::default();
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        failures.note_success();
        assert!(failures.present().is_none());

        failures.note(full());
        let failure = failures.present().unwrap().failure;
        failures.note(full());
        assert_eq!(failures.present().unwrap().failure, failure);
        failures.note_success();

        assert!(failures.present().is_none());
    }
}
