//! Counters of reads by tier, since the daemon's start.

use crate::metrics::Counter;

/// The reads of all tiers.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    pub(crate) memory: TierReads,
    pub(crate) disk: TierReads,
    /// Requests to the bucket for parts of segments.
    pub(crate) s3: TierReads,
}

/// Reads of parts of segments from one tier.
#[derive(Debug, Default)]
pub(crate) struct TierReads {
    pub(crate) count: Counter,
    pub(crate) bytes: Counter,
}

impl TierReads {
    pub(super) fn note(&self, bytes: usize) {
        self.count.add(1);
        self.bytes.add(bytes as u64);
    }
}

impl Reads {
    /// Returns all tiers with their names.
    pub(crate) fn all(&self) -> [(&'static str, &TierReads); 3] {
        [
            ("memory", &self.memory),
            ("disk", &self.disk),
            ("s3", &self.s3),
        ]
    }
}
