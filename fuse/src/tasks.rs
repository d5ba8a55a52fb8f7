//! [`Tasks`]: the background tasks of a mount, which end with it.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The background tasks of a mount, requests in flight among them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    ending: CancellationToken,
}

impl Tasks {
    /// Spawns a task that is dropped when the mount ends. Its output is `None` then.
    pub(crate) fn spawn_until_end<F>(&self, work: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let ending = self.ending.clone();
        self.spawn(async move { ending.run_until_cancelled(work).await })
    }

    /// Spawns a task that finds out by itself that the mount ends.
    pub(crate) fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(work)
    }

    /// Runs `work`, and returns its output. Returns `None` if the mount ends first.
    pub(crate) async fn until_end<F: Future>(&self, work: F) -> Option<F::Output> {
        self.ending.run_until_cancelled(work).await
    }

    /// Waits until the mount ends.
    pub(crate) async fn ending(&self) {
        self.ending.cancelled().await;
    }

    /// Tells all tasks that the mount ends.
    pub(crate) fn end(&self) {
        self.ending.cancel();
    }

    /// Ends all tasks, and waits for them.
    pub(crate) async fn end_all(&self) {
        self.end();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
