//! Fuzzes TOCs: any tail of an archive leads to the TOC, and a decoded TOC encodes to the same
//! bytes.
#![no_main]

use cachewfs_format::{FrameSize, SeekTable, Toc, TocLocation};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    for archive_len in [payload.len() as u64, payload.len() as u64 + 1000, u64::MAX] {
        check_location(payload, archive_len);
    }

    // The target adds a right trailer: a fuzzer's changes would always break it.
    let len = u32::try_from(payload.len() + 8).expect("a fuzzer's input is short");
    let payload = [payload, &len.to_le_bytes(), b"CTOC"].concat();
    let frame = cachewfs_fuzz::skippable_frame(0x184D_2A5B, &payload);
    let decoded = cachewfs_fuzz::with_memory_limit(4096 + 16 * frame.len(), || Toc::decode(&frame));
    let Ok((digest, toc)) = decoded else { return };
    assert_eq!(toc.encode(), Ok((digest, frame.clone())));
    let end = toc.archive_len().expect("decoding refuses an overflow");
    let last = toc.segments_with_offsets().last();
    assert_eq!(
        last.map_or(0, |(offset, segment)| offset + segment.stored_len),
        end
    );
    check_every_tail(&frame);
});

/// Checks that a found TOC is within `tail`, and that a longer tail is requested only if the
/// archive has it.
fn check_location(tail: &[u8], archive_len: u64) {
    match Toc::locate(tail, archive_len) {
        Ok(TocLocation::Found(range)) => {
            let frame = tail.get(range).expect("the range is within the tail");
            drop(Toc::decode(frame));
        }
        Ok(TocLocation::NeedsTail(len)) => {
            assert!(
                len > tail.len() as u64 && len <= archive_len,
                "a tail of {len} bytes is requested"
            );
        }
        Err(_) => {}
    }
}

/// Checks that at most two more requests find the TOC, however short the first tail is.
fn check_every_tail(frame: &[u8]) {
    let size = FrameSize {
        stored_len: 1,
        content_len: 1,
    };
    let table = SeekTable {
        frames: vec![size; 3],
    };
    let archive = [
        frame,
        &table.encode().expect("a short table can be encoded"),
    ]
    .concat();
    for first_len in [9, 49, 50, archive.len() / 2, archive.len()] {
        let mut tail_len = first_len.clamp(9, archive.len());
        let found = (0..3).find_map(|_| {
            let tail = &archive[archive.len() - tail_len..];
            match Toc::locate(tail, archive.len() as u64).expect("the archive has a TOC") {
                TocLocation::Found(range) => Some(tail[range].to_vec()),
                TocLocation::NeedsTail(len) => {
                    tail_len = usize::try_from(len).expect("the archive is short");
                    None
                }
            }
        });
        assert_eq!(found.as_deref(), Some(frame));
    }
}
