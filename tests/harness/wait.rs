//! Waiting for a condition, with a deadline.

use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
const PERIOD: Duration = Duration::from_millis(20);

/// Waits until `condition` holds; panics with `what` if it doesn't in a minute.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_up_to(PATIENCE, what, condition);
}

/// Waits until `condition` holds; panics with `what` if it takes longer than `patience`.
pub fn wait_up_to(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        pause();
    }
}

/// Runs `work` on a thread of its own; panics with `what` if it takes longer than `limit`.
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

/// Between two looks at a condition.
#[expect(
    clippy::disallowed_methods,
    reason = "no executor here, and always within a deadline"
)]
pub(crate) fn pause() {
    std::thread::sleep(PERIOD);
}
