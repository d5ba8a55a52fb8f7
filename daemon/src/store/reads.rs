//! What each tier was read for, counted from the daemon's start.

use crate::metrics::Counter;

/// What each tier was read for.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    pub(crate) memory: TierReads,
    pub(crate) disk: TierReads,
    /// Requests for parts of segments, and their bytes.
    pub(crate) s3: TierReads,
}

/// Reads of a part of one segment.
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
    /// All tiers with their names.
    pub(crate) fn all(&self) -> [(&'static str, &TierReads); 3] {
        [
            ("memory", &self.memory),
            ("disk", &self.disk),
            ("s3", &self.s3),
        ]
    }
}
