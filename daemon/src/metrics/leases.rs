//! Leases on publishes.

use super::cells::Counter;
use super::names;
use super::text::Page;

/// What may happen with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseEvent {
    /// This daemon took it.
    Acquired,
    /// Another daemon had it, so that this one waited.
    Waited,
    /// It was taken though the daemon that had it had not released it.
    TakenOver,
    /// Another daemon has taken it from this one.
    Lost,
    /// It could not be used, and the publish went on without.
    Failed,
}

impl LeaseEvent {
    const ALL: [Self; 5] = [
        Self::Acquired,
        Self::Waited,
        Self::TakenOver,
        Self::Lost,
        Self::Failed,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Acquired => "acquired",
            Self::Waited => "waited",
            Self::TakenOver => "taken_over",
            Self::Lost => "lost",
            Self::Failed => "failed",
        }
    }
}

/// What is counted of all leases.
#[derive(Debug, Default)]
pub(crate) struct LeaseMetrics([Counter; LeaseEvent::ALL.len()]);

impl LeaseMetrics {
    pub(crate) fn note(&self, event: LeaseEvent) {
        // An event is its own place: the array has one for each.
        self.0[event as usize].add(1);
    }

    #[cfg(test)]
    pub(crate) fn count(&self, event: LeaseEvent) -> u64 {
        self.0[event as usize].value()
    }

    pub(super) fn render(&self, page: &mut Page) {
        let mut samples = page.metric(&names::LEASES);
        for (event, counter) in LeaseEvent::ALL.into_iter().zip(&self.0) {
            samples.push(&[event.as_str()], counter.value());
        }
    }
}
