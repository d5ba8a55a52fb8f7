//! Waits for conditions, always with a deadline.

use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long [`wait_until`] waits before it panics. Long enough for everything on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(1);
/// How long to sleep before a condition is checked again.
const PERIOD: Duration = Duration::from_millis(20);

/// Waits until `condition` holds. Panics with `what` if it doesn't hold within a minute.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_up_to(TIMEOUT, what, condition);
}

/// Waits until `condition` holds. Panics with `what` if it doesn't hold within `timeout`.
pub fn wait_up_to(timeout: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "timed out after {timeout:?} waiting until {what}"
        );
        pause();
    }
}

/// Runs `work` on a new thread and returns its result. Panics with `what` if it takes longer than
/// `limit`.
pub fn run_with_deadline<T: Send + 'static>(
    what: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver
        .recv_timeout(limit)
        .unwrap_or_else(|_| panic!("{what} took longer than {limit:?}"))
}

/// Sleeps for one period, between two checks of a condition.
#[expect(
    clippy::disallowed_methods,
    reason = "there is no executor here, and each caller has a deadline"
)]
pub(crate) fn pause() {
    std::thread::sleep(PERIOD);
}
