//! Counters of reads by tier, since the daemon's start.

use cachewfs_base::Counter;

/// The reads of all tiers.
#[derive(Debug, Default)]
pub struct Reads {
    pub memory: TierReads,
    pub disk: TierReads,
    /// Requests to the bucket for parts of segments.
    pub s3: TierReads,
}

/// Reads of parts of segments from one tier.
#[derive(Debug, Default)]
pub struct TierReads {
    pub count: Counter,
    pub bytes: Counter,
}

impl TierReads {
    pub(super) fn note(&self, bytes: usize) {
        self.count.add(1);
        self.bytes.add(bytes as u64);
    }
}

impl Reads {
    /// Returns all tiers with their names.
    pub fn all(&self) -> [(&'static str, &TierReads); 3] {
        [
            ("memory", &self.memory),
            ("disk", &self.disk),
            ("s3", &self.s3),
        ]
    }
}
