//! The daemon's configuration: one TOML file, every key with a default.
//!
//! ```text
//! settings ◄── check, derived ◄── file, explain (line and advice) ◄── environment (secrets)
//!     ▲           show (without secrets)
//!     └────────── live (the configuration in force; changes when the file is read again)
//! ```

mod check;
mod derived;
mod environment;
mod explain;
mod file;
mod former_keys;
mod live;
mod settings;
mod show;

pub(crate) use live::LiveConfig;
pub use settings::{Config, GitHttpConfig, JobsConfig, LfsMode, LogFormat, PublishConfig};
