//! Verified content of segments, from the cache or fetched from a daemon.
//!
//! A read goes through these files in order:
//!
//! ```text
//! read.rs      which chunks does the range need, and which of them are missing?
//!   │            └─ claim: exactly one reader requests a missing chunk, the others wait
//! window.rs    how many chunks around a missing one share its request?
//! transfer.rs  stream the window, verify each chunk, write it to the cache, wake the waiters
//! body.rs      ask again for the rest of a body that falls quiet
//! retry.rs     try again, and give up in time
//! failures.rs  let a failure answer those who ask again at once
//! ```
//!
//! `table.rs` loads the table first. `registry.rs` keeps one [`Segment`] for each segment id, so
//! that snapshots share cached chunks. `cached.rs` has the files of a segment in the cache.
//! `group.rs` fetches many small neighbouring segments in one request.
//!
//! Invariant: no unverified byte leaves this module. A table is checked against the id of its
//! segment, a chunk against its table.

mod backend;
mod body;
mod cached;
mod error;
mod failures;
mod group;
#[cfg(test)]
mod group_tests;
mod opens;
mod read;
mod reading;
mod registry;
mod retry;
mod segment;
mod table;
#[cfg(test)]
mod tests;
mod transfer;
mod window;

pub(crate) use backend::Backend;
pub(crate) use error::ReadError;
pub(crate) use group::fetch_whole;
pub(crate) use opens::{Backing, IoMode};
pub(crate) use registry::Segments;
pub(crate) use segment::{Segment, SegmentLocation};
