//! Whether the daemon takes requests, for load balancers (`/readyz`).

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// A phase in the life of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// The daemon looks for mirrors on its disk.
    Starting,
    Ready,
    /// The daemon got a signal to stop, and takes requests for `drain_delay` more.
    Stopping,
}

/// The current phase of the daemon's life.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    has_started: AtomicBool,
    shutdown: CancellationToken,
}

impl Lifecycle {
    /// Creates the state of a daemon that starts. `shutdown` is cancelled when a signal tells it to
    /// stop.
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
