//! Fuzzes seek tables: a decoded table of this crate encodes to the same bytes. A table of another
//! program encodes to a table that decodes to an equal value.
#![no_main]

use cachewfs_format::SeekTable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    drop(SeekTable::frame_len(payload));
    let frame = cachewfs_fuzz::skippable_frame(0x184D_2A5E, payload);

    let decoded =
        cachewfs_fuzz::with_memory_limit(4096 + 2 * frame.len(), || SeekTable::decode(&frame));

    let Ok(table) = decoded else { return };
    assert_eq!(SeekTable::frame_len(&frame), Ok(frame.len() as u64));
    let encoded = table.encode().expect("a decoded table can be encoded");
    assert_eq!(SeekTable::decode(&encoded).as_ref(), Ok(&table));
    // Another program may set bit 7 of the descriptor, for checksums, or bits 0 and 1, which are
    // unused.
    let descriptor = frame[frame.len() - 5];
    assert!(descriptor != 0 || encoded == frame);
});
