//! Damaged archives are refused: flipped bits, missing ends, random bytes.

use cachewfs_format::{Digest, SegmentId, SegmentTable, Toc};
use proptest::prelude::*;

use crate::harness::{archive_of, paths_and_contents, read, sample, skippable_frame};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        drop(Toc::locate(&bytes, bytes.len() as u64));
        drop(Toc::decode(&bytes));
        drop(SegmentTable::decode(SegmentId(Digest::of(&bytes)), &bytes));
        // With a valid frame, header and digest around them, the bytes get past the first checks.
        for (magic, header) in [(0x184D_2A5A, b"CWFSSEG\0\x01\0"), (0x184D_2A5B, b"CWFSTOC\0\x01\0")] {
            let payload = [&header[..], &bytes].concat();
            let frame = skippable_frame(magic, &payload);
            drop(Toc::decode(&frame));
            drop(SegmentTable::decode(SegmentId(Digest::of(&payload)), &frame));
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error_or_changes_nothing() {
    let (archive, name) = archive_of(&sample());
    let expected = paths_and_contents(sample());

    let mut unnoticed = 0;
    for at in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[at] ^= 1 << (at % 8);
        match read(&damaged, name) {
            Err(_) => {}
            // Only a bit in the records of the seek table may flip unnoticed: a mount doesn't read
            // them.
            Ok(files) => {
                assert_eq!(files, expected, "bit flipped at {at} of {}", archive.len());
                unnoticed += 1;
            }
        }
    }
    assert!(
        unnoticed < archive.len() / 10,
        "{unnoticed} of {}",
        archive.len()
    );
}

#[test]
fn every_truncation_is_an_error() {
    let (archive, name) = archive_of(&sample());

    for len in 0..archive.len() {
        assert!(
            read(&archive[..len], name).is_err(),
            "cut to {len} of {}",
            archive.len()
        );
    }
}
