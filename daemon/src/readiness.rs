//! Whether the daemon takes requests, for load balancers.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// How far the daemon is in its lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It looks for mirrors on disk.
    Starting,
    Ready,
    /// It was told to stop, and may still take requests for `drain_delay`.
    Stopping,
}

/// Tells how far the daemon is.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    has_started: AtomicBool,
    shutdown: CancellationToken,
}

impl Lifecycle {
    /// `shutdown` is cancelled when the daemon is told to stop.
    pub(crate) fn new(shutdown: CancellationToken) -> Self {
        Self {
            has_started: AtomicBool::new(false),
            shutdown,
        }
    }

    pub(crate) fn note_started(&self) {
        self.has_started.store(true, Ordering::Release);
    }

    pub(crate) fn readiness(&self) -> Readiness {
        if self.shutdown.is_cancelled() {
            Readiness::Stopping
        } else if self.has_started.load(Ordering::Acquire) {
            Readiness::Ready
        } else {
            Readiness::Starting
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_starts_is_ready_and_stops() {
        let shutdown = CancellationToken::new();
        let lifecycle = Lifecycle::new(shutdown.clone());

        assert_eq!(lifecycle.readiness(), Readiness::Starting);
        lifecycle.note_started();
        assert_eq!(lifecycle.readiness(), Readiness::Ready);
        shutdown.cancel();
        assert_eq!(lifecycle.readiness(), Readiness::Stopping);
    }
}
