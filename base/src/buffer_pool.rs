//! [`BufferPool`]: buffers of one length that are used again. Fresh memory from the kernel costs
//! more than reading into it.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// A pool of buffers. Clones share it.
#[derive(Clone, Debug)]
pub struct BufferPool(Arc<Unused>);

/// The unused buffers, each of length `len`.
#[derive(Debug)]
struct Unused {
    len: usize,
    max_free: usize,
    free: Mutex<Vec<Box<[u8]>>>,
}

/// A buffer. Its content is left over from an earlier use.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    /// The part of `bytes` that is used, from their start.
    len: usize,
    pool: BufferPool,
}

impl BufferPool {
    /// Returns an empty pool for buffers of length `len`, which keeps at most `max_free` unused
    /// ones.
    pub fn new(len: usize, max_free: usize) -> Self {
        let free = Mutex::default();
        Self(Arc::new(Unused {
            len,
            max_free,
            free,
        }))
    }

    /// Returns a buffer that shows `len` bytes, at most as many as the pool's length.
    pub fn take(&self, len: usize) -> Buffer {
        let free = self.0.free.lock().pop();
        let bytes = free.unwrap_or_else(|| vec![0; self.0.len].into_boxed_slice());
        let len = len.min(bytes.len());
        let pool = self.clone();
        Buffer { bytes, len, pool }
    }

    /// Returns a new buffer of exactly `len` bytes. If that isn't the pool's length, the buffer is
    /// freed after its use.
    pub fn take_exact(&self, len: usize) -> Buffer {
        if len == self.0.len {
            return self.take(len);
        }
        Buffer {
            bytes: vec![0; len].into_boxed_slice(),
            len,
            pool: self.clone(),
        }
    }

    /// Returns how many unused buffers there are.
    pub fn unused(&self) -> usize {
        self.0.free.lock().len()
    }
}

impl Buffer {
    /// Returns the memory that the buffer takes, in bytes.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the content. The buffer goes back to the pool once all of the bytes are dropped.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.split_at(self.len).0
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self.bytes.split_at_mut(self.len).0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let unused = &self.pool.0;
        if self.bytes.len() != unused.len {
            return;
        }
        let mut free = unused.free.lock();
        if free.len() < unused.max_free {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_nobody_reads_it() {
        let pool = BufferPool::new(1000, 8);
        let bytes = pool.take_exact(1000).into_bytes();
        let (at, slice) = (bytes.as_ptr(), bytes.slice(1..2));

        drop(bytes);
        assert_ne!(pool.take(1000).as_ref().as_ptr(), at);
        drop(slice);
        drop(pool.take_exact(999));

        assert_eq!(pool.unused(), 2);
        let again = [pool.take(10), pool.take(10)];
        assert!(again.iter().any(|buffer| buffer.as_ref().as_ptr() == at));
        assert!(again.iter().all(|buffer| buffer.as_ref().len() == 10));
    }
}
