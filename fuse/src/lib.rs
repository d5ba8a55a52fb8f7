//! The mount: repositories that are there at once, and fetched as they are read.
//!
//! ```text
//! adapter (fuser) → fs → view → repository → segment → fetch (HTTP)
//!                                               └────→ cache (disk)
//! ```

mod adapter;
mod cache;
pub mod control;
mod error;
mod fetch;
mod first_look;
mod fs;
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
pub use mount::{Mount, MountError};
pub use options::{Hydrate, MountOptions};
