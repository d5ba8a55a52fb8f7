//! [`Waiting`]: counts calls or readers that wait, and tells when none does.

use std::sync::Arc;

use tokio::sync::watch;

/// The number of those that wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting(Arc<watch::Sender<usize>>);

impl Waiting {
    /// Counts one more until the returned guard is dropped.
    pub(crate) fn wait(&self) -> WaitingGuard {
        self.0.send_modify(|count| *count += 1);
        WaitingGuard(self.clone())
    }

    /// Returns once none waits.
    pub(crate) async fn until_none(&self) {
        // The sender is in `self`, so it is there.
        self.0.subscribe().wait_for(|count| *count == 0).await.ok();
    }
}

/// A guard that counts one as waiting.
#[derive(Debug)]
pub(crate) struct WaitingGuard(Waiting);

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}
