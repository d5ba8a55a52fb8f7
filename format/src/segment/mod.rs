//! Segments: immutable runs of archive bytes that describe themselves.
//!
//! ```text
//! segment = chunk chunk … chunk  segment table (skippable frame)
//! ```
//!
//! The table lists the length and the digest of each chunk, and the tar members in them. The digest
//! of the table is the id of the segment. So a reader who knows the id can verify the table, and
//! then each chunk alone.

mod entry;
mod table;
mod writer;

pub use entry::{Content, Entry, EntryKind};
pub use table::{Chunk, PlacedChunk, SegmentTable};
pub use writer::SegmentWriter;
