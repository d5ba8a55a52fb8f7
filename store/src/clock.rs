//! The time line that makes deleting from a bucket safe.
//!
//! The collector deletes segments that no manifest names. Another daemon may be about to write a
//! manifest that names one of them. Nothing but compare-and-swap on single objects is available,
//! and the daemons' clocks are never compared. So the collector first writes a *deletion notice*,
//! the object `deletions`, with the ids that it is about to delete. Then it waits for the notice
//! period N ([`NoticePeriod`], 1 minute by default).
//!
//! # The publisher, from the moment t at which it begins to read the notice
//!
//! 1. t: it begins to read the notice. All its deadlines count from here, not from the answer.
//! 2. If the notice has an id that the publisher needs, it waits until the notice changes, or for
//!    4N (see the collector's step 5).
//! 3. It checks that all its segments are there. If one was deleted before, it builds the snapshot
//!    again.
//! 4. Until t + N/4 it may begin to write the manifest. A write is given up after N/4, so the
//!    manifest is there by t + N/2, or never.
//! 5. Until t + N/2 it may begin to move the pointer. So the pointer is moved by t + 3N/4, or
//!    never.
//!
//! # The collector, from the moment a at which the notice is in the store
//!
//! 1. b, shortly before a: it begins to write the notice.
//! 2. a: the notice is in the store. Every read that begins later sees it. The collector reads it
//!    back, and counts its wait from then on.
//! 3. a + N at the earliest: it lists manifests (or reads the pointer) again, and drops the ids
//!    that are named now.
//! 4. Until b + 3N it may begin to delete one of the others. A deletion is given up after N/4, so
//!    the last one is over by b + 3.25N.
//! 5. A publisher or collector that has seen the same notice for 4N knows that its collector has
//!    ended or was killed.
//!
//! The worst case, in which the publisher reads the notice just before it is there:
//!
//! ```text
//!             0         N/4        N/2       3N/4        N            3N    3.25N    4N
//! publisher   t─────────┼──────────┼──────────┤          │             │      │      │
//!             reads     last begin last begin pointer    │             │      │      │
//!             notice    of the     of the     is there   │             │      │      │
//!                       manifest   pointer               │             │      │      │
//! collector   a──────────────── waits ───────────────────┼── deletes ──┼──────┤      │
//!             notice is there                       looks again   last begin  over   │
//! others      ├──────────────────── respect the notice ──────────────────────────────┤
//! ```
//!
//! # Why this is enough
//!
//! - t later than a: the publisher sees the notice, and waits (its step 2).
//! - t earlier than a: the publisher's manifest is there by t + N/2, which is before the collector
//!   looks again at a + N. The pointer is there by t + 3N/4. In the worst case, t just before a,
//!   N/4 is to spare.
//!
//! # The assumptions
//!
//! A request that was given up may still be carried out later: the network, a proxy or the service
//! may hold it back. Nothing but time tells that it won't be. If all clocks run at the same speed,
//! such a write has N/4 until the second look, and a deletion has 3N/4. If one clock runs 10% too
//! fast and the other 10% too slow, 0.08N and 0.03N are left. So the argument assumes that no
//! request is held back for longer than that, and that no daemon stands still for longer between a
//! look at its clock and sending the request.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use async_trait::async_trait;

/// A clock that only goes forward. Each daemon has its own, and no two are compared.
#[async_trait]
pub(super) trait Clock: Debug + Send + Sync {
    /// Returns the time since some moment in the past.
    fn now(&self) -> Duration;

    /// Sleeps.
    async fn pause(&self, time: Duration);
}

/// The monotonic clock of this machine.
#[derive(Debug)]
pub(super) struct MachineClock(Instant);

impl Default for MachineClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

#[async_trait]
impl Clock for MachineClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    async fn pause(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// The notice period N: how long a collector waits between its deletion notice and the second look.
///
/// The other times of the module's time line are fractions or multiples of it. All daemons that
/// share a store must have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoticePeriod(pub Duration);

impl NoticePeriod {
    /// Returns how long a write of a manifest or pointer, or a deletion, may take with all its
    /// retries and its wait for a permit.
    pub fn write_limit(self) -> Duration {
        self.0 / 4
    }

    /// Returns how long after the publisher began to read the deletion notice it may begin to write
    /// a manifest.
    pub(super) fn manifest_limit(self) -> Duration {
        self.0 / 4
    }

    /// Returns how long after the publisher began to read the deletion notice it may begin to move
    /// the pointer.
    pub(super) fn pointer_limit(self) -> Duration {
        self.0 / 2
    }

    /// Returns how long a reader may remember that a manifest exists. The collector announces the
    /// segments of a manifest after it has deleted the manifest, and waits for N, so they still
    /// exist for that long.
    pub(super) fn manifest_cache_time(self) -> Duration {
        self.0 / 4
    }

    /// Returns how long after the collector began to write its deletion notice it may begin to
    /// delete an object.
    pub(super) fn delete_limit(self) -> Duration {
        self.0 * 3
    }

    /// Returns how long another daemon must respect a deletion notice that doesn't change. After
    /// that, the collector that wrote it has ended or was killed.
    pub(super) fn lifetime(self) -> Duration {
        self.0 * 4
    }
}

impl Default for NoticePeriod {
    fn default() -> Self {
        Self(Duration::from_mins(1))
    }
}
