//! Builds small archives, and reads them as a mount does.

mod builder;
pub(crate) mod memory;
mod reader;
mod sample;

use std::path::{Path, PathBuf};

pub(crate) use builder::Builder;
pub(crate) use reader::{FoundFile, read};
pub(crate) use sample::{SampleFile, archive_of, paths_and_contents, sample};

/// Returns the root directory of the project.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Converts an offset or a length in an archive, which is in memory.
pub(crate) fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

/// Wraps `payload` in a zstd skippable frame.
pub(crate) fn skippable_frame(magic: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    [&magic.to_le_bytes()[..], &len.to_le_bytes(), payload].concat()
}
