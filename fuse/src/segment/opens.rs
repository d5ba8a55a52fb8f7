//! How the kernel reads an open segment: through this process, or directly from the cache's file.
//!
//! Linux keeps one I/O mode for each inode (`fs/fuse/iomode.c`). While an inode is open in one
//! mode, an open in the other mode fails with EIO. So does a passthrough open with another backing
//! file. Therefore the first open chooses the mode, and all later ones follow until the last is
//! released:
//!
//! ```text
//! no open ──► incomplete on disk: Cached      ──► last release ──► no open
//!         └─► complete on disk:   Passthrough ──► last release ──► no open
//! ```

use fuser::BackingId;

/// An I/O mode of an open file. The kernel allows one mode for each inode at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IoMode {
    /// The kernel asks this process and keeps the bytes in the page cache.
    Cached,
    /// The kernel reads the cache's file itself, without this process.
    Passthrough,
}

/// The kernel's opens of one segment.
#[derive(Debug, Default)]
pub(crate) struct SegmentOpens {
    /// The number of opens. All have one mode.
    pub(crate) count: usize,
    /// The kernel's registration of the cache's file, while opens use passthrough.
    pub(crate) backing: Option<Backing>,
}

/// The kernel's registration of a cache file.
#[derive(Debug)]
pub(crate) enum Backing {
    /// Dropping it makes the kernel close the file.
    Attached(BackingId),
    /// The id of one that another process made, or that this process was about to give away. fuser
    /// can attach it only when it answers an `open`.
    Detached(u32),
}

impl SegmentOpens {
    /// Returns the mode that the next open must have, or `None` if it may choose.
    pub(crate) fn required_mode(&self) -> Option<IoMode> {
        match (self.count, &self.backing) {
            (0, _) => None,
            (_, Some(_)) => Some(IoMode::Passthrough),
            // The file may have become complete since the first open. The mode stays cached,
            // because the kernel would refuse a passthrough open beside a cached one.
            (_, None) => Some(IoMode::Cached),
        }
    }

    /// Detaches the registration, so that it outlives this process. Returns its id.
    pub(crate) fn detach(&mut self) -> Option<u32> {
        let id = match self.backing.take()? {
            Backing::Attached(attached) => attached.into_raw(),
            Backing::Detached(id) => id,
        };
        self.backing = Some(Backing::Detached(id));
        Some(id)
    }

    /// Uncounts a released open. Returns the id of a registration that must be closed and could not
    /// be.
    pub(crate) fn release(&mut self) -> Option<u32> {
        self.count = self.count.saturating_sub(1);
        if self.count > 0 {
            return None;
        }
        // All passthrough opens share one registration, so only the last may close it. Then the
        // next open chooses its mode again.
        match self.backing.take()? {
            Backing::Attached(_) => None,
            Backing::Detached(id) => Some(id),
        }
    }
}
