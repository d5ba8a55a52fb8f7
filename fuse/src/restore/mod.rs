//! Restores a snapshot to local disk, for machines without FUSE.
//!
//! ```text
//! restore.rs     asks for the snapshot, and writes all of it
//!   ├─► wanted.rs     waits for refs and commits
//!   ├─► plan.rs       divides its segments into steps, each of one request or few
//!   ├─► download.rs   fetches steps in parallel into a cache of its own, which verifies them
//!   ├─► run_files.rs  writes the files of a run of the work tree, while later steps arrive
//!   │     └─► tree_writer.rs   creates files, and follows no symbolic link
//!   └─► git_files.rs  gives packs, indexes and commit-graphs their names; writes the index
//! ```
//!
//! The cache makes a restore resume: a chunk that an earlier process fetched is compared with its
//! mark, and not fetched again. The caller removes the cache when the restore is complete.

mod download;
mod error;
mod git_files;
mod plan;
mod restore;
mod run_files;
#[cfg(test)]
mod tests;
mod tree_writer;
mod wanted;

pub use error::RestoreError;
pub use restore::{Restore, RestoreOptions, RestorePlace};
pub(crate) use wanted::wait_for;
