//! [`Callers`]: the calls that wait for an answer of the mount. All are answered before the machine
//! sleeps.
//!
//! The kernel can't freeze a thread that waits for the mount, and it freezes the mount's process
//! first. So a suspend fails while a single call waits.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::waiting::Waiting;

/// How long calls may still take that the network answers.
const GRACE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 2000 });
/// How long calls don't wait after [`Callers::release`]. The machine sleeps before it is over.
const RELEASE: Duration = Duration::from_secs(10);

/// The calls that wait for an answer of the mount.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    pub(crate) waiting: Waiting,
    released_at: watch::Sender<Option<Instant>>,
}

impl Callers {
    /// Returns once calls must not wait.
    pub(crate) async fn released(&self) {
        let mut released_at = self.released_at.subscribe();
        let is_recent = |at: &Option<Instant>| at.is_some_and(|at| at.elapsed() < RELEASE);
        // The sender is in `self`, so it is there.
        released_at.wait_for(is_recent).await.ok();
    }

    /// Gives waiting calls a moment, then has all of them fail. Returns once none waits. For some
    /// seconds, new ones fail at once.
    pub(crate) async fn release(&self) {
        timeout(GRACE, self.waiting.until_none()).await.ok();
        self.released_at.send_replace(Some(Instant::now()));
        self.waiting.until_none().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn all_calls_are_answered_and_new_ones_do_not_wait() {
        let callers = Arc::new(Callers::default());
        let call = || {
            let (callers, waiting) = (Arc::clone(&callers), callers.waiting.wait());
            tokio::spawn(async move {
                callers.released().await;
                drop(waiting);
            })
        };
        let early = call();

        callers.release().await;

        early.await.unwrap();
        call().await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_released_unasked() {
        let callers = Callers::default();
        let released = timeout(Duration::from_millis(20), callers.released());
        assert!(released.await.is_err());
    }
}
