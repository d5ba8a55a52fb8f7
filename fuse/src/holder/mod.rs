//! The messages to the holder, a small process that outlives the one that serves the mount.
//!
//! `recovery` uses them. The journal of open segments is in memory that the holder keeps, too.

mod holder;
mod journal;
mod message;

pub use holder::Holder;
pub(crate) use journal::{OpenJournal, OpenSegment, memory, read_journal};
pub(crate) use message::FILES;
pub use message::{receive, send};
