//! Which files the kernel has open, and how they are read.

use std::sync::Arc;

use fuser::BackingId;

/// How an open file is read: the kernel allows one way for each inode at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IoMode {
    /// Through this process and the page cache.
    Cached,
    /// By the kernel, from the cache's file.
    Passthrough,
}

/// The opens of one segment.
#[derive(Debug, Default)]
pub(crate) struct SegmentOpens {
    /// How many opens there are, all in the same mode.
    pub(crate) count: usize,
    /// The kernel's name for the cache's file, while it is open for passthrough.
    pub(crate) backing: Option<Arc<BackingId>>,
}

impl SegmentOpens {
    /// The mode that an open must have now; `None` if it is free to choose.
    pub(crate) fn required_mode(&self) -> Option<IoMode> {
        match (self.count, &self.backing) {
            (0, _) => None,
            (_, Some(_)) => Some(IoMode::Passthrough),
            (_, None) => Some(IoMode::Cached),
        }
    }

    /// Counts an open off.
    pub(crate) fn release(&mut self) {
        self.count = self.count.saturating_sub(1);
        if self.count == 0 {
            self.backing = None;
        }
    }
}
