//! Forged archives: numbers with false values, and digests that match them.
//!
//! The maker of an archive can write any value into a number, and compute the digests anew. So a
//! digest that matches doesn't make a number true. These tests change the numbers one by one.

use cachewfs_format::{Digest, Toc, TocLocation};

use crate::harness::memory::with_memory_limit;
use crate::harness::{archive_of, read, sample, skippable_frame, to_usize};

/// At most this many bytes may be allocated to read a changed sample. The sample itself needs less;
/// a reader that believed a false number would need much more.
const MAX_READ_BYTES: usize = 1 << 20;

/// An archive in pieces, which a test changes one by one.
#[derive(Clone)]
struct Pieces {
    /// The chunks of each segment, and the payload of its table.
    segments: Vec<(Vec<u8>, Vec<u8>)>,
    /// The payload of the TOC.
    toc: Vec<u8>,
    /// The frame of the seek table.
    seek_table: Vec<u8>,
}

impl Pieces {
    fn of_sample() -> Self {
        let (archive, _) = archive_of(&sample());
        let TocLocation::Found(range) = Toc::locate(&archive, archive.len() as u64).unwrap() else {
            panic!("the tail is the whole archive, and has the TOC");
        };
        let (_, toc) = Toc::decode(&archive[range.clone()]).unwrap();
        let segments = toc
            .segments_with_offsets()
            .map(|(offset, record)| {
                let stored = &archive[to_usize(offset)..to_usize(offset + record.stored_len)];
                let table_at = stored.len() - to_usize(record.table_len.into());
                (stored[..table_at].to_vec(), stored[table_at + 8..].to_vec())
            })
            .collect();
        Self {
            segments,
            toc: archive[range.start + 8..range.end].to_vec(),
            seek_table: archive[range.end..].to_vec(),
        }
    }

    /// Replaces the payload of a segment table, and its digest wherever it occurs.
    fn set_table(&mut self, index: usize, payload: Vec<u8>) {
        let old = Digest::of(&self.segments[index].1);
        let new = Digest::of(&payload);
        self.segments[index].1 = payload;
        replace(&mut self.toc, &old, &new);
        // The segment with the header of a large file names the segment with its data.
        for before in 0..index {
            let mut payload = self.segments[before].1.clone();
            if replace(&mut payload, &old, &new) {
                self.set_table(before, payload);
            }
        }
    }

    /// Returns whether a reader refuses the archive. Panics if the reader allocates too much
    /// memory.
    ///
    /// An archive that isn't refused may have other files than the sample: its name is another one
    /// too.
    fn is_refused(&self) -> bool {
        let mut archive = Vec::new();
        for (chunks, table) in &self.segments {
            archive.extend_from_slice(chunks);
            archive.extend(skippable_frame(0x184D_2A5A, table));
        }
        archive.extend(skippable_frame(0x184D_2A5B, &self.toc));
        archive.extend_from_slice(&self.seek_table);
        with_memory_limit(MAX_READ_BYTES, || read(&archive, Digest::of(&self.toc))).is_err()
    }
}

/// Replaces a digest wherever it occurs. Returns whether it occurs.
fn replace(bytes: &mut [u8], old: &Digest, new: &Digest) -> bool {
    let offsets: Vec<usize> = (0..bytes.len().saturating_sub(31))
        .filter(|&offset| bytes[offset..].starts_with(old.as_bytes()))
        .collect();
    for &offset in &offsets {
        bytes[offset..offset + 32].copy_from_slice(new.as_bytes());
    }
    !offsets.is_empty()
}

/// Returns copies of `bytes` with false values of the number of `width` bytes at `offset`.
fn false_values(bytes: &[u8], offset: usize, width: usize) -> Vec<Vec<u8>> {
    let mut padded = [0; 8];
    padded[..width].copy_from_slice(&bytes[offset..offset + width]);
    let number = u64::from_le_bytes(padded);
    [
        0,
        1,
        number.wrapping_add(1),
        number.wrapping_sub(1),
        u64::MAX,
        u64::MAX / 3,
    ]
    .map(|lie| {
        let mut changed = bytes.to_vec();
        changed[offset..offset + width].copy_from_slice(&lie.to_le_bytes()[..width]);
        changed
    })
    .into_iter()
    .filter(|changed| changed != bytes)
    .collect()
}

#[test]
fn the_unchanged_archive_is_read() {
    assert!(!Pieces::of_sample().is_refused());
}

#[test]
fn a_false_length_of_a_chunk_is_refused() {
    let original = Pieces::of_sample();

    for (index, (_, table)) in original.segments.iter().enumerate() {
        let chunk_count = u32::from_le_bytes(*table[10..].first_chunk().unwrap());
        for offset in
            (0..to_usize(chunk_count.into())).flat_map(|chunk| [18 + 40 * chunk, 22 + 40 * chunk])
        {
            for lie in false_values(table, offset, 4) {
                let mut pieces = original.clone();
                pieces.set_table(index, lie);
                assert!(
                    pieces.is_refused(),
                    "at {offset} of the table of segment {index}"
                );
            }
        }
    }
}

#[test]
fn swapped_lengths_of_two_chunks_are_refused() {
    let original = Pieces::of_sample();

    for (index, (_, table)) in original.segments.iter().enumerate() {
        let (first, second) = (
            table[18..26].to_vec(),
            table.get(58..66).unwrap_or_default(),
        );
        if table[10] < 2 || first == second {
            continue;
        }
        let mut lie = table.clone();
        lie[18..26].copy_from_slice(second);
        lie[58..66].copy_from_slice(&first);
        let mut pieces = original.clone();
        pieces.set_table(index, lie);
        assert!(pieces.is_refused(), "the table of segment {index}");
    }
}

#[test]
fn a_false_length_of_a_segment_is_refused() {
    let original = Pieces::of_sample();

    for (_, table) in &original.segments {
        let id = Digest::of(table);
        let record = (0..original.toc.len())
            .find(|&offset| original.toc[offset..].starts_with(id.as_bytes()))
            .unwrap();
        // Stored, table, content.
        for (offset, width) in [(record + 33, 8), (record + 41, 4), (record + 45, 8)] {
            for toc in false_values(&original.toc, offset, width) {
                let pieces = Pieces {
                    toc,
                    ..original.clone()
                };
                assert!(pieces.is_refused(), "at {offset} of the TOC");
            }
        }
    }
}

/// Changes bytes at every offset, whether a number is there or not. The reader may accept the
/// result, but it must not panic or allocate too much.
#[test]
fn no_number_makes_a_reader_panic_or_take_memory() {
    let original = Pieces::of_sample();

    for width in [4, 8] {
        for (index, (_, table)) in original.segments.iter().enumerate() {
            for offset in 0..=table.len() - width {
                for lie in false_values(table, offset, width).into_iter().step_by(2) {
                    let mut pieces = original.clone();
                    pieces.set_table(index, lie);
                    pieces.is_refused();
                }
            }
        }
        for offset in 0..=original.toc.len() - width {
            for toc in false_values(&original.toc, offset, width)
                .into_iter()
                .step_by(2)
            {
                Pieces {
                    toc,
                    ..original.clone()
                }
                .is_refused();
            }
        }
    }
}
