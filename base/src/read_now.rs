//! Reads from a file without waiting for its disk.

use std::fs::File;
use std::io::IoSliceMut;

use rustix::io::{ReadWriteFlags, preadv2};

/// Fills `into` with the bytes from `start` on if they are in the page cache. Returns whether it
/// did.
///
/// Always returns `false` on filesystems without `RWF_NOWAIT`.
pub fn read_now(file: &File, start: u64, into: &mut [u8]) -> bool {
    let len = into.len();
    preadv2(
        file,
        &mut [IoSliceMut::new(into)],
        start,
        ReadWriteFlags::NOWAIT,
    ) == Ok(len)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn cached_bytes_are_read_and_none_beyond_the_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"in memory").unwrap();

        let mut bytes = [0; 6];
        assert!(read_now(&file, 3, &mut bytes));
        assert_eq!(&bytes, b"memory");
        assert!(!read_now(&file, 4, &mut bytes));
    }
}
