//! The repositories that a mount shows.
//!
//! ```text
//! repositories.rs   lookup of a name: what is known (slots.rs, names.rs, hosts.rs), or ask
//!       │           whether the daemons answer is in reachability.rs
//!       ├─► load.rs       first lookup of a repository: from a daemon, or from disk
//!       ├─► hydrate.rs    fetch segments in the background, as the options say
//!       └─► catch_up.rs   poll the daemon; switch to newer snapshots
//! ```
//!
//! `report.rs` has the reports for `cachewfs status`, and the pins. `paths.rs` fetches some files,
//! `inventory.rs` checks and drops cached bytes. `hand_over.rs` passes all of it to another
//! process.

mod ask_hosts;
mod catch_up;
mod error;
mod hand_over;
mod hosts;
mod hydrate;
mod inventory;
mod load;
mod names;
mod paths;
mod reachability;
mod report;
mod repositories;
mod repository;
mod slots;
#[cfg(test)]
mod tests;
mod toc;

pub(crate) use error::RepoError;
pub(crate) use hydrate::kept_of;
pub(crate) use inventory::CheckedBytes;
pub(crate) use names::is_probed;
pub use paths::PathReader;
pub(crate) use paths::fetch_paths;
pub(crate) use repositories::{Repositories, ResolvedName};
pub(crate) use repository::Repository;
pub(crate) use toc::{TAIL_LEN, load_toc};
