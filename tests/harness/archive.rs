//! Verifies the bytes of an archive, and extracts an archive with stock tools.

use std::path::Path;
use std::process::Command;

use cachewfs_format::{SegmentTable, Toc, TocLocation, decode_chunk};

/// Panics unless all digests of the archive are right. The `ETag` must be the digest of the TOC.
/// The TOC has the ids of the segments, and each segment's table has the digests of its chunks.
pub fn verify_archive(etag: &str, bytes: &[u8]) {
    let to_index = |offset: u64| usize::try_from(offset).unwrap();
    let slice = |begin: u64, end: u64| &bytes[to_index(begin)..to_index(end)];
    let TocLocation::Found(place) = Toc::locate(bytes, bytes.len() as u64).unwrap() else {
        panic!("the archive has no TOC");
    };
    let (digest, toc) = Toc::decode(&bytes[place]).unwrap();
    assert_eq!(format!("\"{digest}\""), etag);
    for (offset, segment) in toc.segments_with_offsets() {
        let stored = slice(offset, offset + segment.stored_len);
        let (chunks, frame) =
            stored.split_at(stored.len() - to_index(u64::from(segment.table_len)));
        let table = SegmentTable::decode(segment.id, frame).unwrap();
        for (index, chunk) in table.chunks().iter().enumerate() {
            let range = table.stored_range(index).unwrap();
            let chunk_bytes = &chunks[to_index(range.start)..to_index(range.end)];
            decode_chunk(chunk, chunk_bytes).unwrap();
        }
    }
}

/// Extracts the archive in `file` with GNU tar. `directory` must exist.
pub fn extract_archive(file: &Path, directory: &Path) {
    let tar = Command::new("tar")
        .args(["--zstd", "--extract", "--file"])
        .arg(file)
        .arg("--directory")
        .arg(directory)
        .output()
        .unwrap();
    assert!(
        tar.status.success(),
        "{}",
        String::from_utf8_lossy(&tar.stderr)
    );
}
