//! Waits for conditions while the test's other futures go on, always with a deadline.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long to wait for a condition. Long enough for everything on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long to sleep before a condition is checked again.
const PERIOD: Duration = Duration::from_millis(10);

/// Waits until `look` finds something, and returns it. Fails the test after half a minute with
/// what `look` has found instead.
pub(crate) async fn until<T, E: Display>(mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(instead) => assert!(Instant::now() < deadline, "{instead}"),
        }
        sleep(PERIOD).await;
    }
}

/// Waits until `condition` holds. Fails the test after half a minute.
pub(crate) async fn eventually(condition: impl Fn() -> bool) {
    until(async || {
        condition()
            .then_some(())
            .ok_or("the condition never became true")
    })
    .await;
}
