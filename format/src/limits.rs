//! What a reader accepts at most, whatever a length field says; section 9 of `docs/format.md`.

use crate::{Error, Result};

/// Bytes of a repository's name.
pub const MAX_REPO_NAME_LEN: usize = 512;
/// Bytes of its host with the port: what DNS allows, and a file name.
pub const MAX_HOST_LEN: usize = 253;
/// Bytes of a segment of its path: a file name, also with a suffix.
pub const MAX_REPO_NAME_SEGMENT_LEN: usize = 240;
/// Segments of a repository's path.
pub const MAX_REPO_NAME_SEGMENTS: usize = 16;
/// Bytes of a component of a path in an archive; `NAME_MAX` of Linux.
pub const MAX_COMPONENT_LEN: usize = 255;
/// Bytes of a path in an archive; `PATH_MAX` of Linux.
pub const MAX_PATH_LEN: usize = 4096;
/// Uncompressed bytes of a chunk. Writers use 16 KiB to 1 MiB.
pub const MAX_CHUNK_LEN: u32 = 4 << 20;
/// Stored bytes of a chunk: raw blocks add 3 bytes for each 128 KiB, and a frame header.
pub const MAX_STORED_CHUNK_LEN: u32 = MAX_CHUNK_LEN + (64 << 10);
/// Bytes of a segment table: that of a pack of 400 GB in chunks of 256 KiB.
pub const MAX_TABLE_LEN: u32 = 64 << 20;
/// Entries of a segment table. Writers have at most 1024 files in a run.
pub const MAX_ENTRIES: u32 = 64 << 10;
/// Bytes of a TOC: about 600,000 segments.
pub const MAX_TOC_LEN: u32 = 64 << 20;
/// Bytes of a seek table: eight million frames, two terabytes in chunks of 256 KiB.
pub const MAX_SEEK_TABLE_LEN: u32 = 64 << 20;
/// Frames of an archive: 8 bytes each in such a seek table, which has 17 of its own.
pub const MAX_FRAMES: u64 = (64 << 20) / 8 - 3;
/// Segments of an archive that mounts show. A mount keeps about a kilobyte of each in memory.
pub const MAX_SEGMENTS: u32 = 512 << 10;
/// Bytes of content of the segments with refs and other small files of the git directory: two million
/// refs. A mount reads them whole.
pub const MAX_REFS_LEN: u32 = 256 << 20;
/// Bytes of a git index, without what follows its entries: eight million files. A mount reads it whole.
pub const MAX_INDEX_LEN: u32 = 1 << 30;
/// Bytes of a manifest: that of a snapshot with half a million segments.
pub const MAX_MANIFEST_LEN: u32 = 256 << 20;
/// Snapshots that a pointer remembers to have replaced: 110 bytes each at most, so that they fit.
pub const MAX_REPLACED: usize = 256;
/// Bytes of a pointer.
pub const MAX_POINTER_LEN: u32 = 64 << 10;

/// Ids of deleted snapshots that a shelf remembers: 21 bytes each at most.
pub const MAX_USED_IDS: usize = 100_000;
/// Segments and snapshots that are announced at once: 90 bytes each at most.
pub const MAX_DELETION_NOTICES: usize = 50_000;
/// Bytes of what is said of deletions: both of these fit.
pub const MAX_DELETIONS_LEN: u32 = 8 << 20;

/// Refuses a length, or a count, of `section` that is over `max`.
pub(crate) fn check_at_most(section: &'static str, len: impl TryInto<u64>, max: u32) -> Result<()> {
    let (len, max) = (len.try_into().unwrap_or(u64::MAX), u64::from(max));
    if len > max {
        return Err(Error::TooLarge { section, len, max });
    }
    Ok(())
}
