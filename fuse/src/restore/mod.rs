//! Restores a snapshot to local disk, for machines without FUSE.
//!
//! ```text
//! restore.rs     asks for the snapshot
//!   ├─► wanted.rs     waits for refs and commits
//!   └─► objects.rs    fetches and writes objects: those of HEAD, or all that a clone lacks
//!         ├─► plan.rs       divides their segments into steps, each of one request or few
//!         ├─► download.rs   fetches steps in parallel into a cache of its own, which verifies them
//!         └─► git_files.rs  gives packs, their indexes and commit-graphs their names
//!               └─► tree_writer.rs   creates files, and follows no symbolic link
//! ```
//!
//! git writes the files of the work tree, from the packs.
//!
//! The cache makes a restore resume: a chunk that an earlier process fetched is compared with its
//! mark, and not fetched again. The caller removes the cache when the restore is complete.

mod download;
mod error;
mod git_files;
mod objects;
mod plan;
mod restore;
#[cfg(test)]
mod tests;
mod tree_writer;
mod wanted;

pub use error::RestoreError;
pub use git_files::PACK_KEEP;
pub use objects::ObjectsPart;
pub use restore::{Restore, RestoreOptions};
pub(crate) use wanted::wait_for;
