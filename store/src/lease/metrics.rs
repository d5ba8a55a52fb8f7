//! Counts the events in the life of leases.

use cachewfs_base::Counter;

/// An event in the life of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// This daemon acquired the lease.
    Acquired,
    /// This daemon waited, because another daemon held the lease.
    Waited,
    /// This daemon acquired an expired lease that its holder hadn't released.
    TakenOver,
    /// Another daemon acquired the lease while this daemon still published.
    Lost,
    /// The lease couldn't be read or written, and the publish went on without a lease.
    Failed,
}

impl LeaseEvent {
    /// All of them, in the order of the enum.
    pub const ALL: [Self; 5] = [
        Self::Acquired,
        Self::Waited,
        Self::TakenOver,
        Self::Lost,
        Self::Failed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acquired => "acquired",
            Self::Waited => "waited",
            Self::TakenOver => "taken_over",
            Self::Lost => "lost",
            Self::Failed => "failed",
        }
    }
}

/// The number of each event, for all leases together.
#[derive(Debug, Default)]
pub struct LeaseMetrics([Counter; LeaseEvent::ALL.len()]);

impl LeaseMetrics {
    /// Counts an event.
    pub fn note(&self, event: LeaseEvent) {
        // The array has one element for each event, in the order of the enum.
        self.0[event as usize].add(1);
    }

    /// Returns how often the event has happened.
    pub fn count(&self, event: LeaseEvent) -> u64 {
        self.0[event as usize].value()
    }
}
