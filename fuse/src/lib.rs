//! The mount: shows repositories as directories and fetches their content when it is read.
//!
//! ```text
//! kernel ──► adapter ──► fs ──► repository ──► view ──► segment ──► fetch (HTTP)
//!            (fuser)                                       └──────► cache (disk)
//! ```
//!
//! Beside a request of the kernel, `repository` polls the daemon for newer snapshots,
//! `invalidate` tells the kernel what changed, and `control` serves the CLI over a socket.

mod adapter;
mod awake;
mod cache;
pub mod control;
mod error;
mod failed_reads;
mod fetch;
mod first_look;
mod fs;
mod hand_over;
mod invalidate;
mod killed;
mod lasting_failure;
mod moment;
mod mount;
mod mount_table;
mod options;
mod parse;
mod passthrough;
mod readable_bytes;
pub mod recovery;
mod repository;
mod segment;
mod session;
#[cfg(test)]
mod testing;
mod traffic;
mod view;

pub use fetch::{SecretToken, TokenError};
pub use hand_over::HandOverError;
pub use mount::{Mount, MountError};
pub use mount_table::{DeviceNumber, TableEntry, clear_dead_mount, is_dead, mount_table};
pub use options::{Hydrate, MountOptions, Owner};
pub use readable_bytes::readable_bytes;
