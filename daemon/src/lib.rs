//! The daemon: mirrors upstream repositories, publishes snapshots of them, and serves them over
//! HTTP.
//!
//! ```text
//! http ─► repository ─► publish ─► mirror (git)
//!   └────────────────────► store ◄──┘
//! ```
//!
//! An arrow goes from a folder to one that it calls. The program `cachewfsd` runs [`Daemon::start`]
//! and handles signals. `cachewfs mount --local` runs the daemon in its own process, with
//! [`Daemon::start_with_token`].

mod app;
mod auth;
mod background;
mod clock;
mod collection;
mod config;
mod disk_usage;
mod error_chain;
mod http;
mod listener;
mod log_output;
mod map_concurrently;
mod metrics;
mod mirror;
mod mirrors_config;
mod open_store;
mod percent;
mod pkt_line;
mod private;
mod publish;
mod read_now;
mod readiness;
mod reloaded;
mod repository;
mod restore;
mod shares;
mod store;
mod traces;
mod volume;

pub use app::{CheckWarning, Daemon, Reloader, Running, StartError};
pub use auth::{AuthConfig, AuthError, NewToken, PolicyError, TokensError};
pub use collection::CollectionReport;
pub use config::{
    Config, ConfigError, GitConfig, GitHttpConfig, LfsMode, LogFormat, UpstreamConfig,
};
pub use listener::{TlsConfig, TlsError};
pub use log_output::LogOutput;
pub use mirror::{CredentialError, GitVersionError, UpstreamAuthConfig};
pub use mirrors_config::MirrorsConfig;
pub use store::{S3Config, StoreConfig};
pub use traces::{ExportHeaders, TRACE_TARGET, Traces, TracesError, TracingConfig};
