//! The limits of lengths and counts, which readers and writers enforce (`docs/format.md` section
//! 9).
//!
//! The maker of an archive chooses the numbers in its length fields. So a decoder compares each
//! number with its limit before it reserves memory for it.

use crate::{Error, Result};

/// At most this many bytes in a repository's name.
pub const MAX_REPO_NAME_LEN: usize = 512;
/// At most this many bytes in the host of a repository's name, with its port. DNS allows no more,
/// and the host fits in a file name.
pub const MAX_HOST_LEN: usize = 253;
/// At most this many bytes in a segment of a repository's path. A segment is used as a file name,
/// with a suffix of up to 15 bytes.
pub const MAX_REPO_NAME_SEGMENT_LEN: usize = 240;
/// At most this many segments in a repository's path.
pub const MAX_REPO_NAME_SEGMENTS: usize = 16;
/// At most this many bytes in a component of a path in an archive: `NAME_MAX` of Linux.
pub const MAX_COMPONENT_LEN: usize = 255;
/// At most this many bytes in a path in an archive: `PATH_MAX` of Linux.
pub const MAX_PATH_LEN: usize = 4096;
/// At most this many uncompressed bytes in a chunk. Writers use 16 KiB to 1 MiB.
pub const MAX_CHUNK_LEN: u32 = 4 << 20;
/// At most this many stored bytes in a chunk. Raw blocks add 3 bytes for each 128 KiB of content,
/// and a frame has a header.
pub const MAX_STORED_CHUNK_LEN: u32 = MAX_CHUNK_LEN + (64 << 10);
/// At most this many bytes in a segment table: enough for a pack of 400 GB in chunks of 256 KiB.
pub const MAX_TABLE_LEN: u32 = 64 << 20;
/// At most this many entries in a segment table. Writers put at most 1024 files in a run.
pub const MAX_ENTRIES: u32 = 64 << 10;
/// At most this many bytes in a TOC: enough for about 600,000 segments.
pub const MAX_TOC_LEN: u32 = 64 << 20;
/// At most this many bytes in a seek table: enough for eight million frames, which are two
/// terabytes in chunks of 256 KiB.
pub const MAX_SEEK_TABLE_LEN: u32 = 64 << 20;
/// At most this many frames in an archive. Each takes 8 bytes of the longest seek table; its header
/// and its footer take 17 bytes, the space of three more.
pub const MAX_FRAMES: u64 = (64 << 20) / 8 - 3;
/// At most this many segments in a mirror or checkout archive. A mount keeps about a kilobyte for
/// each segment in memory.
pub const MAX_SEGMENTS: u32 = 512 << 10;
/// At most this many bytes of content in the segments with refs and other small files of the git
/// directory: enough for two million refs. A mount reads these segments whole.
pub const MAX_REFS_LEN: u32 = 256 << 20;
/// At most this many bytes of content in the segments of a git index: enough for eight million
/// files. A mount reads the index whole.
pub const MAX_INDEX_LEN: u32 = 1 << 30;
/// At most this many bytes in a manifest: enough for a snapshot with half a million segments.
pub const MAX_MANIFEST_LEN: u32 = 256 << 20;
/// At most this many replaced snapshots in a pointer. Each takes at most 110 bytes, so that all of
/// them fit in [`MAX_POINTER_LEN`].
pub const MAX_REPLACED: usize = 256;
/// At most this many bytes in a pointer.
pub const MAX_POINTER_LEN: u32 = 64 << 10;

/// At most this many ids of deleted snapshots are remembered. Each takes at most 21 bytes.
pub const MAX_USED_IDS: usize = 100_000;
/// At most this many segments and snapshots have a deletion notice at one time. Each takes at most
/// 90 bytes.
pub const MAX_DELETION_NOTICES: usize = 50_000;
/// At most this many bytes in the deletions object. The most used ids and the most deletion notices
/// fit together.
pub const MAX_DELETIONS_LEN: u32 = 8 << 20;

/// Refuses a length or a count of `section` that is over `max`.
pub(crate) fn check_at_most(section: &'static str, len: impl TryInto<u64>, max: u32) -> Result<()> {
    let (len, max) = (len.try_into().unwrap_or(u64::MAX), u64::from(max));
    if len > max {
        return Err(Error::TooLarge { section, len, max });
    }
    Ok(())
}
