//! The mount: shows repositories as directories and fetches their content when it is read.
//!
//! ```text
//! mount, recovery, hand_over          the life of a mount, over processes
//!   │
//!   ├─ kernel ──► session ─► fs ─┐
//!   └─ CLI ────► control ────────┴─► repository ─► view ─► segment ─┬─► fetch (HTTP)
//!                                     └─► invalidate ─► kernel      └─► cache (disk)
//! ```
//!
//! `restore` writes a snapshot to local disk instead, with the rooms from `view` on.
//!
//! Each room uses those to its right and no other. `saved_state` is what `fs`, `repository` and
//! `control` write down for the next process. The files beside the rooms are the ground floor.

mod awake;
mod cache;
mod caller;
mod callers;
pub mod control;
mod dead_mount;
mod failed_reads;
mod fetch;
mod first_look;
mod fs;
mod hand_over;
mod holder;
mod ino;
mod invalidate;
mod killed;
mod lasting_failure;
mod moment;
mod mount;
mod mount_table;
mod negotiated;
mod options;
mod parse;
mod passthrough;
mod readable_bytes;
mod recent_processes;
pub mod recovery;
mod report;
mod repository;
mod restore;
mod saved_state;
mod segment;
mod session;
mod tasks;
#[cfg(test)]
mod testing;
mod token;
mod traffic;
mod view;
mod waiting;

pub use dead_mount::{clear_dead_mount, is_dead};
pub use fetch::{Step, StepOutcome, probe_daemon};
pub use mount::{Mount, MountError};
pub use mount_table::{DeviceNumber, TableEntry, mount_table, mount_table_lines};
pub use options::{Hydrate, MountOptions, Owner};
pub use passthrough::{PassthroughObstacle, kernel_has_passthrough};
pub use readable_bytes::readable_bytes;
pub use restore::{ObjectsPart, PACK_KEEP, Restore, RestoreError, RestoreOptions};
pub use saved_state::HandOverError;
pub use token::{SecretToken, TokenError};
