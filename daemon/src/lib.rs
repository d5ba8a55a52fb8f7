//! The daemon: mirrors upstream repositories, publishes snapshots of them, serves them over HTTP.
//!
//! ```text
//! http ─► repository ─► publish ─► mirror (git)
//!   └────────────────────► store ◄──┘
//! ```
//!
//! `cachewfsd` is [`Daemon::start`] with signals; `cachewfs mount --local` calls the same.

mod app;
mod config;
mod error_chain;
mod http;
mod mirror;
mod mirrors_config;
mod pkt_line;
mod publish;
mod repository;
mod restore;
mod store;

pub use app::{Daemon, Running, StartError};
pub use config::{Config, ConfigError, GitConfig, GitHttpConfig};
pub use mirrors_config::MirrorsConfig;
