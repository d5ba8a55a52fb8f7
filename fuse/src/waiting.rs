//! [`Readers`]: the readers that wait for the network, to which hydration gives way.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The readers that wait for the network.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    waiting: AtomicUsize,
    /// The signal that the last waiting reader is served.
    none_waits: Notify,
}

impl Readers {
    /// Counts a waiting reader until the returned guard is dropped.
    pub(super) fn wait(&self) -> WaitingReader<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        WaitingReader(self)
    }

    /// Returns once no reader waits for the network.
    pub(crate) async fn until_none_waits(&self) {
        loop {
            // Created before the check: it then receives a `notify_waiters` that comes between
            // the check and the await.
            let notified = self.none_waits.notified();
            if self.waiting.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// A guard that counts one reader as waiting for the network.
#[derive(Debug)]
pub(super) struct WaitingReader<'a>(&'a Readers);

impl Drop for WaitingReader<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none_waits.notify_waiters();
        }
    }
}
