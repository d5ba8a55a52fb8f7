//! The TOC: what an archive is of, and its segments in order. Its digest names the archive.

mod kind;
mod locate;
mod role;
mod segment;
mod table;

pub use kind::ArchiveKind;
pub use locate::TocLocation;
pub use role::Role;
pub use segment::{TocFile, TocSegment};
pub use table::Toc;

const SECTION: &str = "TOC";
/// At the very end of the TOC, so that it is found backwards: its length, then this.
const TRAILER_MAGIC: u32 = u32::from_le_bytes(*b"CTOC");
const TRAILER_LEN: usize = 8;
