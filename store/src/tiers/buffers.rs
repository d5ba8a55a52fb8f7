//! A pool of buffers for parts. Fresh memory from the kernel costs more than reading into it.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::fill::PART_LEN;

/// At most this many unused buffers are kept: as many as are read ahead of one client.
const MAX_FREE: usize = 8;

/// Unused buffers of the length of a part.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Box<[u8]>>>>);

/// A buffer. Its content is left over from an earlier use.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    of: Buffers,
}

impl Buffers {
    pub(super) fn take(&self, len: usize) -> Buffer {
        let free = is_kept(len).then(|| self.0.lock().pop()).flatten();
        Buffer {
            bytes: free.unwrap_or_else(|| vec![0; len].into_boxed_slice()),
            of: self.clone(),
        }
    }
}

impl Buffer {
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Returns the content. The buffer goes back to the pool once all of the bytes are dropped.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !is_kept(self.bytes.len()) {
            return;
        }
        let mut free = self.of.0.lock();
        if free.len() < MAX_FREE {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// Returns whether buffers of this length go back to the pool. Shorter ones are of all lengths, so
/// they would rarely fit.
fn is_kept(len: usize) -> bool {
    len as u64 == PART_LEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_nobody_reads_it() {
        let buffers = Buffers::default();
        let len = usize::try_from(PART_LEN).unwrap();
        let bytes = buffers.take(len).into_bytes();
        let (at, slice) = (bytes.as_ptr(), bytes.slice(1..2));

        drop(bytes);
        assert_ne!(buffers.take(len).as_ref().as_ptr(), at);
        drop(slice);
        drop(buffers.take(len - 1));

        let free: Vec<_> = buffers.0.lock().iter().map(|free| free.as_ptr()).collect();
        assert!(free.contains(&at) && free.len() == 2);
    }
}
