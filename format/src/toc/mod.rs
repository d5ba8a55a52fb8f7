//! The TOC (table of contents) of an archive: its kind, its snapshot and its segments in order.
//!
//! The digest of the TOC names the archive. The TOC is near the end of the archive, where a reader
//! finds it backwards:
//!
//! ```text
//! segment … segment │ TOC: header, records, trailer │ seek table: header, records, footer
//!                                            ▲                                      │
//!                                            └──── the footer gives the length ─────┘
//! ```
//!
//! The trailer of the TOC has the length of the payload, and so the start of the TOC.

mod kind;
mod locate;
mod pack_kind;
mod part;
mod role;
mod segment;
mod table;

pub use kind::ArchiveKind;
pub use locate::TocLocation;
pub use pack_kind::PackKind;
pub use part::SnapshotPart;
pub use role::Role;
pub use segment::{TocFile, TocSegment};
pub use table::Toc;

const SECTION: &str = "TOC";
/// The magic number at the very end of the TOC's payload, after the length of the payload.
const TRAILER_MAGIC: u32 = u32::from_le_bytes(*b"CTOC");
const TRAILER_LEN: usize = 8;
