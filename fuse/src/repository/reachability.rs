//! Whether the daemons answer. One request that fails teaches the lookups after it.

use std::time::{Duration, Instant};

use cachewfs_base::chain;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::RepoError;
use crate::awake;
use crate::control::protocol::FailureReport;
use crate::fetch::FetchError;
use crate::hand_over::OutageState;
use crate::lasting_failure::LastingFailure;

/// How long lookups fail at once after a request got no answer in time. Without this, each of them
/// would wait until its deadline.
const SILENCE_TTL: Duration = Duration::from_secs(20);
/// How long lookups fail at once after a request was refused at once. The next one costs little.
const REFUSAL_TTL: Duration = Duration::from_secs(1);

/// The lesson of the last requests about the daemons.
#[derive(Debug)]
pub(crate) struct Reachability {
    /// How long a short request may take before the daemons count as silent. A bit less than the
    /// deadline of a lookup, so that the next lookup knows.
    silence: Duration,
    state: Mutex<State>,
    /// The signal that wakes the task that asks until the daemons answer again.
    outage_began: Notify,
}

#[derive(Debug, Default)]
struct State {
    outage: Option<Outage>,
    /// The last time at which a daemon answered a short request.
    answered_at: Option<Instant>,
    /// The last time at which a lookup stopped waiting and showed the snapshot on disk.
    slow_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Outage {
    failure: LastingFailure,
    /// Until when lookups fail without a request.
    believed_until: Instant,
}

impl Reachability {
    pub(super) fn new(lookup_timeout: Duration) -> Self {
        Self {
            silence: lookup_timeout / 10 * 9,
            state: Mutex::default(),
            outage_began: Notify::new(),
        }
    }

    /// Makes a short request, and notes whether the daemons answer it.
    pub(super) async fn observe<T>(
        &self,
        request: impl Future<Output = Result<T, FetchError>>,
    ) -> Result<T, FetchError> {
        let started_at = Instant::now();
        let mut request = std::pin::pin!(request);
        let outcome = if let Ok(outcome) = awake::timeout(self.silence, &mut request).await {
            outcome
        } else {
            let seconds = self.silence.as_secs_f32();
            let reason = format!("no daemon answered within {seconds} s");
            self.note_outage(reason, (started_at, SILENCE_TTL));
            request.await
        };
        match &outcome {
            Err(error) if is_unreachable(error) => {
                let was_slow = started_at.elapsed() > REFUSAL_TTL;
                let ttl = if was_slow { SILENCE_TTL } else { REFUSAL_TTL };
                self.note_outage(chain(error), (started_at, ttl));
            }
            // The mount ends: this tells nothing about the daemons.
            Err(FetchError::Ending) => {}
            _ => self.note_answer(),
        }
        outcome
    }

    fn note_answer(&self) {
        let now = State {
            answered_at: Some(Instant::now()),
            ..State::default()
        };
        let before = std::mem::replace(&mut *self.state.lock(), now);
        if before.outage.is_some() {
            info!("A daemon answers again");
        }
    }

    /// Notes that a request which began at `started_at` got no answer. Other lookups believe that
    /// for `ttl`.
    fn note_outage(&self, reason: String, (started_at, ttl): (Instant, Duration)) {
        let mut state = self.state.lock();
        if state.answered_at.is_some_and(|at| at > started_at) {
            // The daemons answered another request since: the outage is over, or there is none, and
            // only this request takes long.
            return;
        }
        if state.outage.is_none() {
            // Once for all repositories. `cachewfs status` has the newest reason.
            warn!(error = reason, "No daemon answers: showing what is on disk");
        }
        let known = state.outage.as_ref().map(|outage| &outage.failure);
        state.outage = Some(Outage {
            failure: LastingFailure::after(known, reason),
            believed_until: Instant::now() + ttl,
        });
        drop(state);
        self.outage_began.notify_one();
    }

    /// Notes that a lookup did not wait any longer for the daemons' answer.
    pub(super) fn note_slow(&self) {
        self.state.lock().slow_at = Some(Instant::now());
    }

    /// Returns whether a lookup that can be answered from disk should not wait for the daemons.
    pub(super) fn is_doubtful(&self) -> bool {
        let state = self.state.lock();
        let was_slow = state.slow_at.is_some_and(|at| at.elapsed() < SILENCE_TTL);
        was_slow || state.outage.is_some()
    }

    /// Returns the error for a lookup that needs the daemons, or `None` if it should ask them.
    pub(super) fn recent_outage(&self) -> Option<RepoError> {
        let state = self.state.lock();
        let outage = state.outage.as_ref()?;
        (Instant::now() < outage.believed_until).then(|| RepoError::Offline {
            reason: outage.failure.reason.clone(),
        })
    }

    /// Returns since when the daemons don't answer and why, or `None` if they answered last time.
    pub(crate) fn outage(&self) -> Option<FailureReport> {
        self.state
            .lock()
            .outage
            .as_ref()
            .map(|outage| outage.failure.report())
    }

    /// Returns the outage for another process.
    pub(super) fn save(&self) -> Option<OutageState> {
        let outage = self.state.lock().outage.clone()?;
        Some(OutageState {
            failure: outage.failure.report(),
            believed_for: outage
                .believed_until
                .saturating_duration_since(Instant::now()),
        })
    }

    /// Takes over the outage that another process noticed.
    pub(super) fn restore(&self, outage: OutageState) {
        self.state.lock().outage = Some(Outage {
            failure: outage.failure.into(),
            // Not longer than this process would believe it.
            believed_until: Instant::now() + outage.believed_for.min(SILENCE_TTL),
        });
        self.outage_began.notify_one();
    }

    /// Waits until a request notes that the daemons don't answer.
    pub(super) async fn outage_began(&self) {
        self.outage_began.notified().await;
    }

    /// Makes all memories older.
    #[cfg(test)]
    pub(super) fn age(&self, by: Duration) {
        let mut state = self.state.lock();
        if let Some(outage) = &mut state.outage {
            outage.believed_until -= by;
        }
        state.slow_at = state.slow_at.and_then(|at| at.checked_sub(by));
    }
}

/// Returns whether an error means that no daemon was reached.
pub(super) fn is_unreachable(error: &FetchError) -> bool {
    match error {
        FetchError::Unreachable { .. }
        | FetchError::TimedOut { .. }
        | FetchError::Silent { .. } => true,
        // A load balancer answers so if it reaches no daemon. A daemon's own answer has a body.
        FetchError::Status { status, .. } => (502..=504).contains(status),
        FetchError::Refused { .. }
        | FetchError::NotYet { .. }
        | FetchError::Failed { .. }
        | FetchError::Cut { .. }
        | FetchError::NotJson { .. }
        | FetchError::TooLong { .. }
        | FetchError::Broken { .. }
        | FetchError::Direct(_)
        | FetchError::Ending => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_that_began_before_an_answer_begins_no_outage() {
        let reachability = Reachability::new(Duration::from_secs(5));
        let (answered, after_answer) = tokio::sync::oneshot::channel();
        let failure = FetchError::TimedOut { seconds: 1 };
        let early = reachability.observe(async {
            after_answer.await.unwrap();
            Err::<(), _>(failure)
        });
        let late = reachability.observe(async { Ok::<_, FetchError>(()) });
        let late = async {
            late.await.unwrap();
            answered.send(()).unwrap();
        };

        let (failed, ()) = tokio::join!(early, late);

        failed.unwrap_err();
        assert!(reachability.outage().is_none());
        let failure = FetchError::TimedOut { seconds: 1 };
        let failed = reachability.observe(async { Err::<(), _>(failure) });
        failed.await.unwrap_err();
        assert!(reachability.outage().is_some());
    }
}
