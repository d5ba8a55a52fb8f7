//! What a lease is worth: to who looks at it, and to who holds it. Takes the time from its caller.

use std::time::Instant;

use super::Holder;
use super::record::Record;
use crate::store::tier::Version;

/// A lease as somebody saw it first, and when, on their own clock.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    version: Version,
    since: Instant,
}

/// What a look at a lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be taken.
    Free {
        /// Of who had it last.
        last_token: u64,
        /// Whether that one has not released it.
        has_expired: bool,
    },
    HeldBy(Holder),
}

/// Judges what was read before `now`: the lease with its version, or that there is none. `seen` is
/// what was seen before, and changes.
///
/// Nobody's clock is compared with another's: a lease has expired when the same bytes were seen for as
/// long as it runs. What `me` holds it left behind when it was killed.
pub(super) fn judge(
    found: Option<(&Record, &Version)>,
    seen: &mut Option<Seen>,
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
            *seen = Some(Seen {
                version: version.clone(),
                since: now,
            });
        }
    }
    Verdict::HeldBy(record.holder.clone())
}

/// A lease as its holder knows it.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    /// As it was written last.
    pub(super) record: Record,
    /// Until then nobody else can have taken it.
    valid_until: Instant,
}

impl Claimed {
    /// One that was written, by a write that began at `began`: nobody saw it earlier.
    pub(super) fn written(record: Record, began: Instant) -> Self {
        let valid_until = began + record.ttl();
        Self {
            record,
            valid_until,
        }
    }

    /// Whether somebody else may have taken it.
    pub(super) fn may_be_lost(&self, now: Instant) -> bool {
        now >= self.valid_until
    }
}
