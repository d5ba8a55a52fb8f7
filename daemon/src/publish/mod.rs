//! Publishing: making the snapshot of a mirror's present state.
//!
//! ```text
//! refs ─► retain ─► packs (layout or increment) ─► commit_graph ─► checkout ─► assemble ─► store
//! ```
//!
//! Everything runs on a blocking thread, streams through files and gives up when the daemon stops.

mod assemble;
mod build;
mod check;
mod checkout;
mod commit_graph;
mod error;
mod feed;
mod file_times;
mod fixed_times;
mod git_files;
mod increment;
mod index;
mod index_parts;
mod job;
mod layout;
mod left_out;
mod lfs;
mod members;
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

pub(crate) use commit_graph::CHAIN_DIRECTORY;
pub(crate) use error::PublishError;
pub(crate) use feed::{BuildFeed, FedSegments};
pub(crate) use lfs::LfsError;
pub(crate) use publisher::{Attempt, PackLayout, PublishOptions, PublishOutcome, Publisher};
pub(crate) use retain::{RETAINED, retain};
