//! How time passes for those who publish and those who delete.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// A clock that only goes forward, of this daemon alone: no two daemons compare theirs.
pub(super) trait Clock: Debug + Send + Sync {
    /// Since some moment in the past.
    fn now(&self) -> Duration;

    /// Waits.
    fn pause(&self, time: Duration);
}

/// The clock of this machine.
#[derive(Debug)]
pub(super) struct MachineClock(Instant);

impl Default for MachineClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "stores are used on threads that may block"
    )]
    fn pause(&self, time: Duration) {
        thread::sleep(time);
    }
}

/// The times that deleting safely from a store rests on; the same for all daemons that have it.
///
/// A publisher reads what is announced, and from then on has a fourth of `notice` to begin to write its manifest
/// and a half to begin to move the pointer; each write takes a fourth at most. So what it writes
/// without knowing of an announcement is there when who announced looks again, with a fourth to spare. Who announced
/// begins to delete within three times `notice`, and each deletion takes a fourth at most, too; it is heeded for four
/// times `notice`.
///
/// A request that was given up may still be carried out: the network, a proxy or the service may hold what was
/// sent. Clocks are not compared, so nothing but time tells that it isn't: where they go equally fast, writers have
/// the fourth to spare, deletions three; where one goes a tenth too fast and one a tenth too slow, next to
/// nothing. That no request is held for longer, and no daemon stands still for longer between a look at its clock
/// and sending, is what all this rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Notice(pub(crate) Duration);

impl Notice {
    /// How long a write of a manifest or a pointer may take, or a deletion, from when it is wanted.
    pub(crate) fn write_limit(self) -> Duration {
        self.0 / 4
    }

    /// How long after announcements were read a manifest may begin to be written.
    pub(super) fn manifest(self) -> Duration {
        self.0 / 4
    }

    /// How long after announcements were read the pointer may begin to be moved.
    pub(super) fn pointer(self) -> Duration {
        self.0 / 2
    }

    /// For how long a reader may take a manifest for present that was: the segments of one that is deleted are
    /// announced after it.
    pub(super) fn known(self) -> Duration {
        self.0 / 4
    }

    /// How long after it began to announce one who deletes may begin to delete something.
    pub(super) fn deleting(self) -> Duration {
        self.0 * 3
    }

    /// How long an announcement is to be heeded by one who sees it unchanged: until then who made it has deleted what
    /// it will, or was killed.
    pub(super) fn announced(self) -> Duration {
        self.0 * 4
    }
}

impl Default for Notice {
    fn default() -> Self {
        Self(Duration::from_mins(1))
    }
}
