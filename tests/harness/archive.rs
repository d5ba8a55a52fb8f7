//! What an archive has to be, whoever sent it; and extracting one.

use std::path::Path;
use std::process::Command;

use cachewfs_format::{SegmentTable, Toc, TocLocation, decode_chunk};

/// Panics unless every chunk is what its table says, every table what the TOC says, and the TOC what the
/// `ETag` says.
pub fn verify_archive(etag: &str, bytes: &[u8]) {
    let at = |offset: u64| usize::try_from(offset).unwrap();
    let part = |begin: u64, end: u64| &bytes[at(begin)..at(end)];
    let TocLocation::Found(place) = Toc::locate(bytes, bytes.len() as u64).unwrap() else {
        panic!("there is no TOC");
    };
    let (digest, toc) = Toc::decode(&bytes[place]).unwrap();
    assert_eq!(format!("\"{digest}\""), etag);
    for (offset, segment) in toc.segments_with_offsets() {
        let stored = part(offset, offset + segment.stored_len);
        let (chunks, frame) = stored.split_at(stored.len() - at(u64::from(segment.table_len)));
        let table = SegmentTable::decode(segment.id, frame).unwrap();
        for (index, chunk) in table.chunks().iter().enumerate() {
            let range = table.stored_range(index).unwrap();
            let chunk_bytes = &chunks[at(range.start)..at(range.end)];
            decode_chunk(chunk, chunk_bytes).unwrap();
        }
    }
}

/// Extracts the archive in `file` into `directory`, which must be there, with stock tools.
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
