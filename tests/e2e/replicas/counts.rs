//! Counts the events of a storm.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

/// How often each event happened, by its name, and how long the slowest answer took.
#[derive(Debug, Default)]
pub(super) struct Counts {
    events: Mutex<BTreeMap<String, u64>>,
    slowest: Mutex<Duration>,
}

impl Counts {
    /// Counts one event.
    pub(super) fn add(&self, event: impl Into<String>) {
        *self.events.lock().unwrap().entry(event.into()).or_default() += 1;
    }

    /// Returns how often an event happened.
    pub(super) fn of(&self, event: &str) -> u64 {
        let events = self.events.lock().unwrap();
        events.get(event).copied().unwrap_or(0)
    }

    /// Records how long a request took, with all retries.
    pub(super) fn answered_after(&self, took: Duration) {
        let mut slowest = self.slowest.lock().unwrap();
        *slowest = took.max(*slowest);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (event, count) in &*self.events.lock().unwrap() {
            writeln!(formatter, "{count:>8} {event}")?;
        }
        let slowest = self.slowest.lock().unwrap();
        write!(formatter, "slowest answer with all retries: {slowest:?}")
    }
}
