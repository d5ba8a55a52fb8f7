//! Buffers for the bodies of answers.
//!
//! They are reused by one answer after the other. The more answers are in progress, the shorter are
//! new buffers, so that their memory stays near [`BUDGET`] with thousands of slow clients.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::base::{Buffer, BufferPool};

/// The longest block. Longer ones are not sent any faster.
const MAX_LEN: usize = 256 << 10;
/// The shortest block. Shorter ones would cost more in system calls than they save in memory.
const MIN_LEN: usize = 16 << 10;
/// The memory that all blocks together may take, until each has the shortest length.
const BUDGET: usize = 48 << 20;
/// At most this many unused buffers are kept.
const MAX_FREE: usize = 64;

/// The pool for all answers of the daemon.
pub(super) static BLOCKS: LazyLock<BlockPool> = LazyLock::new(BlockPool::default);

/// A pool of buffers that share a budget.
#[derive(Debug)]
pub(super) struct BlockPool {
    /// Buffers of the longest length.
    buffers: BufferPool,
    /// How many blocks are in use.
    used: AtomicUsize,
}

/// A buffer of at most the requested length. It may still contain bytes of an earlier use.
#[derive(Debug)]
pub(super) struct Block {
    buffer: Buffer,
    pool: &'static BlockPool,
}

impl Default for BlockPool {
    fn default() -> Self {
        Self {
            buffers: BufferPool::new(MAX_LEN, MAX_FREE),
            used: AtomicUsize::new(0),
        }
    }
}

impl BlockPool {
    /// Returns a buffer for the first of `wanted` bytes, perhaps shorter than that.
    pub(super) fn take(&'static self, wanted: u64) -> Block {
        let used = self.used.fetch_add(1, Ordering::Relaxed) + 1;
        let longest = (BUDGET / used).clamp(MIN_LEN, MAX_LEN);
        let len = usize::try_from(wanted).map_or(longest, |wanted| wanted.min(longest));
        // Only buffers of the longest length are kept. Under load (`longest` < `MAX_LEN`), a short
        // buffer is allocated instead of one from the pool, which would exceed the budget.
        let buffer = if len > MIN_LEN && longest == MAX_LEN {
            self.buffers.take(len)
        } else {
            self.buffers.take_exact(len)
        };
        Block { buffer, pool: self }
    }
}

impl Block {
    /// Returns the buffer, to be filled.
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        self.buffer.as_mut()
    }

    /// Returns the content as `Bytes`. The buffer goes back to the pool once they are sent.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_ref()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> &'static BlockPool {
        Box::leak(Box::default())
    }

    #[test]
    fn a_buffer_is_reused() {
        let pool = pool();
        let mut block = pool.take(u64::MAX);
        block.as_mut().fill(7);
        let at = block.as_ref().as_ptr();

        drop(block.into_bytes());
        let again = pool.take(MIN_LEN as u64 + 1);

        assert_eq!(again.as_ref().as_ptr(), at);
        assert_eq!(again.as_ref(), vec![7; MIN_LEN + 1]);
    }

    #[test]
    fn many_blocks_are_short() {
        let pool = pool();
        let of_many: Vec<_> = std::iter::repeat_with(|| pool.take(u64::MAX))
            .take(2000)
            .collect();

        let bytes: usize = of_many.iter().map(|block| block.buffer.capacity()).sum();
        let shortest = of_many.iter().map(|block| block.as_ref().len()).min();
        // The first blocks get the full length, because they were taken while few were in use.
        assert!(bytes < 4 * BUDGET, "{bytes}");
        assert!(shortest < Some(MAX_LEN / 8), "{shortest:?}");

        drop(of_many);
        assert_eq!(pool.take(u64::MAX).as_ref().len(), MAX_LEN);
        assert_eq!(pool.buffers.unused(), MAX_FREE);
    }
}
