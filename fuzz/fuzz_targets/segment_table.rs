//! Fuzzes segment tables: a decoded table encodes to the same bytes, and its ranges have no gaps.
#![no_main]

use cachewfs_format::{Digest, EntryKind, SegmentId, SegmentTable};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let frame = cachewfs_fuzz::skippable_frame(0x184D_2A5A, payload);
    let id = SegmentId(Digest::of(payload));

    let decoded = cachewfs_fuzz::with_memory_limit(4096 + 16 * frame.len(), || {
        SegmentTable::decode(id, &frame)
    });

    let Ok(table) = decoded else { return };
    assert_eq!(table.to_frame().as_ref(), Ok(&frame));
    check_ranges(&table);
    for entry in table.entries() {
        assert!(entry.mode <= 0o777);
        assert!(matches!(entry.kind, EntryKind::File(_)) || entry.size == 0);
    }
});

/// Checks that chunks follow one another without gaps, and that each is found by its range.
fn check_ranges(table: &SegmentTable) {
    let (mut stored_end, mut content_end) = (0, 0);
    for index in 0..table.chunks().len() {
        let stored = table.stored_range(index).expect("the table has this chunk");
        let content = table
            .content_range(index)
            .expect("the table has this chunk");
        assert_eq!((stored.start, content.start), (stored_end, content_end));
        assert_eq!(table.chunks_of(content.clone()), index..index + 1);
        assert_eq!(
            table.chunks_of(content.end - 1..content.end),
            index..index + 1
        );
        (stored_end, content_end) = (stored.end, content.end);
    }
    assert_eq!(table.stored_len(), stored_end);
    assert_eq!(table.content_len(), content_end);
    assert_eq!(table.stored_range(table.chunks().len()), None);
    assert_eq!(table.chunks_of(0..u64::MAX), 0..table.chunks().len());
    assert!(table.chunks_of(content_end..u64::MAX).is_empty());
}
