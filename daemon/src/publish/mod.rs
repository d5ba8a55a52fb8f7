//! Publishing: building and storing the snapshot of a mirror's present state.
//!
//! ```text
//! refs ─► retain ─► packs (layout or increment) ─► commit_graph ─► checkout ─► assemble ─► store
//! ```
//!
//! A publish runs on a blocking thread and passes large data through temporary files, not through
//! memory. It stops early if the daemon is stopping.
//!
//! The order of the writes to the store makes a crash harmless:
//!
//! ```text
//! 1. segments   a crash leaves segments that no manifest names; garbage collection deletes them
//! 2. manifest   a crash leaves a snapshot that was never current; readers don't see it
//! 3. pointer    one compare-and-swap: readers see the old snapshot before it, the new one after it
//! ```

mod assemble;
mod attempt;
mod build;
mod check;
mod checkout;
mod commit;
mod commit_graph;
#[cfg(test)]
mod commit_tests;
mod error;
mod feed;
mod file_times;
mod fixed_times;
mod git_files;
mod increment;
mod index;
mod index_parts;
mod input;
mod job;
mod layout;
mod left_out;
mod lfs;
mod members;
mod new_id;
mod pack;
mod packed_refs;
mod published_state;
mod publisher;
mod refs;
mod retain;
mod segments;
mod sort;
mod takeover;
mod tree;
mod tree_size;
mod tree_size_error;

pub(crate) use attempt::{Attempt, PackLayout, PublishOptions, PublishOutcome};
pub(crate) use commit_graph::CHAIN_DIRECTORY;
pub(crate) use error::PublishError;
pub(crate) use feed::{BuildFeed, FedSegments};
pub(crate) use lfs::LfsError;
pub(crate) use publisher::Publisher;
pub(crate) use retain::{RETAINED, retain};
