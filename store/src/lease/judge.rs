//! Judges whether a lease has expired, for a daemon that wants it and for the one that holds it. No
//! I/O; the caller passes the time.

use std::time::Instant;

use super::Holder;
use super::record::LeaseRecord;
use crate::objects::Version;

/// A version of another daemon's lease, and when this daemon saw it first, by its own clock.
#[derive(Clone, Debug)]
pub(super) struct SeenLease {
    version: Version,
    since: Instant,
}

/// The state of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The lease may be taken.
    Free {
        /// The token of its last holder.
        last_token: u64,
        /// Whether the last holder has not released it.
        has_expired: bool,
    },
    HeldBy(Holder),
}

/// Judges a lease that was read before `now`, or `None` if there is no lease object. Updates
/// `seen`.
///
/// No two clocks are compared. A lease has expired for a daemon that has seen the same version for
/// as long as the lease runs. If `me` holds the lease, it is left over from before a restart.
pub(super) fn judge(
    found: Option<(&LeaseRecord, &Version)>,
    seen: &mut Option<SeenLease>,
    (me, now): (&Holder, Instant),
) -> Verdict {
    let Some((record, version)) = found else {
        *seen = None;
        return Verdict::Free {
            last_token: 0,
            has_expired: false,
        };
    };
    let free = |has_expired| Verdict::Free {
        last_token: record.token,
        has_expired,
    };
    if record.is_released {
        *seen = None;
        return free(false);
    }
    // A claim is made only while this daemon doesn't hold the lease. So a lease with its id is left
    // over from before a restart.
    if record.holder.id == me.id {
        *seen = None;
        return free(true);
    }
    match seen {
        Some(seen) if seen.version == *version => {
            if now.saturating_duration_since(seen.since) >= record.ttl() {
                return free(true);
            }
        }
        _ => {
            // The time to live starts now, by this daemon's clock. The lease may have been written
            // long before, which only makes this daemon late.
            *seen = Some(SeenLease {
                version: version.clone(),
                since: now,
            });
        }
    }
    Verdict::HeldBy(record.holder.clone())
}

/// A lease that this daemon holds.
#[derive(Clone, Debug)]
pub(super) struct ClaimedLease {
    /// The record as it was last written.
    pub(super) record: LeaseRecord,
    /// No other daemon can have taken the lease before this moment.
    valid_until: Instant,
}

impl ClaimedLease {
    /// Returns a lease that was written by a request that began at `began`. No other daemon can
    /// have seen this version before `began`.
    pub(super) fn written(record: LeaseRecord, began: Instant) -> Self {
        let valid_until = began + record.ttl();
        Self {
            record,
            valid_until,
        }
    }

    /// Returns whether another daemon may have taken the lease.
    pub(super) fn may_be_lost(&self, now: Instant) -> bool {
        now >= self.valid_until
    }
}
