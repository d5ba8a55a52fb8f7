//! What is on disk.

use std::path::Path;

/// The bytes of all files below a directory; 0 if there is none.
pub fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    entries
        .map(|entry| entry.unwrap())
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            // Renamed into place meanwhile.
            Err(_) => 0,
        })
        .sum()
}
