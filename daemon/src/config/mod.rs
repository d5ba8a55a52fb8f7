//! The daemon's configuration: one TOML file, every key with a default.
//!
//! ```text
//! settings ◄── check ◄── file (with line and advice) ◄── environment (secrets)
//!     ▲           show (without secrets)
//!     └────────── live (the configuration in force; changes when the file is read again)
//! ```

mod check;
mod environment;
mod file;
mod live;
mod settings;
mod show;

pub(crate) use live::LiveConfig;
pub use settings::{Config, GitHttpConfig, LfsMode, LogFormat};
