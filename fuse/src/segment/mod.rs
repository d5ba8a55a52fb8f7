//! Segments as the mount has them: some chunks in the cache, the rest a request away.
//!
//! Everything that leaves here has been verified: tables against the id of their segment, chunks
//! against their table.

mod group;
mod loaded;
mod read;
mod registry;
#[cfg(test)]
mod tests;
mod transfer;
mod window;

pub(crate) use group::fetch_whole;
pub(crate) use loaded::{Segment, SegmentLocation};
pub(crate) use read::ReadError;
pub(crate) use registry::{Backend, Segments};
