//! Seek tables: what decodes encodes to the same bytes; those of others, to an equal value.
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
    let encoded = table.encode().expect("what was read can be written");
    assert_eq!(SeekTable::decode(&encoded).as_ref(), Ok(&table));
    // Others may set the bits 0 and 1 of the descriptor, which mean nothing, or bit 7: checksums.
    let descriptor = frame[frame.len() - 5];
    assert!(descriptor != 0 || encoded == frame);
});
