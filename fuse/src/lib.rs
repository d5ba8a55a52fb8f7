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
mod cache;
pub mod control;
mod error;
mod fetch;
mod first_look;
mod fs;
mod hand_over;
mod invalidate;
mod jitter;
mod mount;
mod options;
mod passthrough;
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
pub use options::{Hydrate, MountOptions};
