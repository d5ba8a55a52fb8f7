//! Decoders reserve memory in proportion to the bytes of their input, not to the counts in it.

use cachewfs_format::{Digest, Error, Manifest, Result, SeekTable, SegmentId, SegmentTable, Toc};

use crate::harness::memory::with_memory_limit;
use crate::harness::skippable_frame;

/// Decodes a segment table with these counts of chunks and entries in front of the bytes `rest`.
fn table(chunks: u32, entries: u32, rest: &[u8]) -> Result<SegmentTable> {
    let counts = [chunks.to_le_bytes(), entries.to_le_bytes()].concat();
    let payload = [&b"CWFSSEG\0\x01\0"[..], &counts, rest].concat();
    let frame = skippable_frame(0x184D_2A5A, &payload);
    with_memory_limit(2 * rest.len() + (256 << 10), || {
        SegmentTable::decode(SegmentId(Digest::of(&payload)), &frame)
    })
}

/// The bytes of the shortest entry: a directory `a`.
const DIRECTORY: [u8; 17] = [1, 0xED, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, b'a'];

#[test]
fn missing_entries_take_no_memory() {
    let rest = vec![0xFF; 1 << 20];
    // The most entries that could fit in these bytes without chunks. In fact no byte is valid.
    let most = u32::try_from(rest.len() / DIRECTORY.len()).unwrap();

    for (chunks, entries) in [(0, most), (26_000, most), (0, 60_000), (26_000, 600)] {
        table(chunks, entries, &rest).unwrap_err();
    }
}

#[test]
fn a_table_has_a_limit_of_entries() {
    let entries = |count: u32| {
        let rest = DIRECTORY.repeat(usize::try_from(count).unwrap());
        let payload = [&b"CWFSSEG\0\x01\0\0\0\0\0"[..], &count.to_le_bytes(), &rest].concat();
        let frame = skippable_frame(0x184D_2A5A, &payload);
        with_memory_limit(32 << 20, || {
            SegmentTable::decode(SegmentId(Digest::of(&payload)), &frame)
        })
    };

    assert_eq!(entries(65_536).unwrap().entries().len(), 65_536);
    assert!(matches!(entries(65_537), Err(Error::TooLarge { .. })));
}

#[test]
fn impossible_counts_take_no_memory() {
    let zeros = [0; 100];
    for count in [u32::MAX, 1 << 30, 10] {
        assert!(matches!(
            table(count, 0, &zeros),
            Err(Error::Truncated { .. })
        ));
        assert!(table(0, count, &zeros).is_err());
    }

    let mut toc = [&b"CWFSTOC\0\x01\0\x02\x03\0h/r\x14"[..], &[0; 20 + 32 + 4]].concat();
    toc.extend([0xFF; 4]);
    toc.extend([0; 1000]);
    let toc = skippable_frame(0x184D_2A5B, &toc);
    let decoded = with_memory_limit(4096, || Toc::decode(&toc));
    assert_eq!(decoded, Err(Error::Truncated { section: "TOC" }));

    let footer = [&[0xFF; 4][..], &[0], &0x8F92_EAB1_u32.to_le_bytes()].concat();
    let seek_table = skippable_frame(0x184D_2A5E, &footer);
    assert!(with_memory_limit(4096, || SeekTable::decode(&seek_table)).is_err());
}

#[test]
fn a_manifest_of_nothing_but_brackets_takes_little_memory() {
    let json = [&br#"{"version":1,"tips":"#[..], &vec![b'['; 1 << 20]].concat();

    with_memory_limit(4 << 20, || Manifest::parse(&json)).unwrap_err();
}
