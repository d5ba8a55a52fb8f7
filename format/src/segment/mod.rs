//! Segments: immutable runs of archive bytes that describe themselves.
//!
//! ```text
//! segment = chunk chunk … chunk  segment table (skippable frame)
//! ```

mod entry;
mod table;
mod writer;

pub use entry::{Content, Entry, EntryKind};
pub use table::{Chunk, SegmentTable};
pub use writer::SegmentWriter;
