//! Time limits that wait a moment longer if this process was stopped.
//!
//! A container engine, `systemctl freeze` or SIGSTOP can stop a process while the clock goes on.
//! The answers of that time are in the kernel's buffers. Without this, all requests under way would
//! time out in the moment in which the process goes on, before it has read them.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How often work is polled at least.
const TICK: Duration = Duration::from_secs(1);
/// How long work may take after a stop, even if its time is over. A request whose connection died
/// meanwhile takes as long to get its first byte over a new one.
///
/// Not for as long as the stop lasted: a suspend that failed because a program waits for the mount
/// was such a stop, and the next try should not fail, too.
const GRACE: Duration = Duration::from_secs(5);

/// The time limit of [`timeout`] passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// Waits for `work`, for at most `limit`.
///
/// After a stop, this waits a second longer than [`until`], which limits fetches. So the error of a
/// fetch, which says more, comes first.
pub(crate) async fn timeout<T>(
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    let end = Instant::now() + limit;
    let pace = (TICK, GRACE + Duration::from_secs(1));
    let outcome = until_at_pace(pin!(work), |earliest| end.max(earliest), pace).await;
    outcome.ok_or(Elapsed)
}

/// Waits for `work` until the time that `end` returns. Returns `None` if that time comes first.
///
/// `end` is called again and again, with the earliest time that it may return. This is in the past,
/// unless the process was stopped a moment ago.
pub(crate) async fn until<T>(
    work: Pin<&mut impl Future<Output = T>>,
    end: impl FnMut(Instant) -> Instant,
) -> Option<T> {
    until_at_pace(work, end, (TICK, GRACE)).await
}

async fn until_at_pace<T>(
    mut work: Pin<&mut impl Future<Output = T>>,
    mut end: impl FnMut(Instant) -> Instant,
    (tick, grace): (Duration, Duration),
) -> Option<T> {
    let mut polled_at = Instant::now();
    let mut earliest = polled_at;
    let mut ticking = pin!(sleep_until(polled_at));
    poll_fn(|context| {
        let now = Instant::now();
        // A busy machine is late, too, but not by a whole tick.
        if now - polled_at > 2 * tick {
            earliest = now + grace;
            // Before the work is polled: the stop may have made it fail, and then its caller looks
            // whether there is time for another attempt.
            end(earliest);
        }
        polled_at = now;
        if let Poll::Ready(outcome) = work.as_mut().poll(context) {
            return Poll::Ready(Some(outcome));
        }
        while ticking.as_mut().poll(context).is_ready() {
            let (now, end_at) = (Instant::now(), end(earliest));
            if now >= end_at {
                return Poll::Ready(None);
            }
            ticking.as_mut().reset(end_at.min(now + tick));
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for `answers`, 200 ms each, for at most 600 ms, or 500 ms after a stop. Stops the
    /// process, which is one thread here, for `stop` after the first poll. Returns whether all
    /// answers came.
    async fn limited(stop: Duration, answers: usize) -> bool {
        let end = Instant::now() + Duration::from_millis(600);
        let mut work = Box::pin(async {
            for _ in 0..answers {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        let mut stop = Some(stop);
        let stopping = poll_fn(|context| {
            let outcome = work.as_mut().poll(context);
            std::thread::park_timeout(stop.take().unwrap_or_default());
            outcome
        });
        // A tick so long that a busy machine doesn't look stopped.
        let pace = (Duration::from_millis(500), Duration::from_millis(500));
        let outcome = until_at_pace(pin!(stopping), |earliest| end.max(earliest), pace).await;
        outcome.is_some()
    }

    #[tokio::test]
    async fn after_a_stop_of_the_process_there_is_time_for_an_answer() {
        let stop = Duration::from_millis(1500);

        assert!(limited(Duration::ZERO, 2).await);
        assert!(!limited(Duration::ZERO, 4).await);
        // The second answer comes 200 ms after the stop, and the fourth one another 400 ms later.
        assert!(limited(stop, 2).await);
        assert!(!limited(stop, 4).await);
    }

    #[tokio::test]
    async fn without_a_stop_the_limit_is_exact() {
        let (limit, started) = (Duration::from_millis(300), Instant::now());

        let outcome = timeout(limit, std::future::pending::<()>()).await;

        assert_eq!(outcome, Err(Elapsed));
        let took = started.elapsed();
        assert!(took >= limit && took < limit * 3, "{took:?}");
    }
}
