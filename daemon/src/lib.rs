//! The daemon: mirrors upstream repositories, publishes snapshots of them, and serves them over
//! HTTP.
//!
//! ```text
//! http ─► repository ─► publish ─► mirror (git)
//!   └────────────────────► store ◄──┘
//! ```
//!
//! An arrow goes from a folder to one that it calls; `store` is a crate of its own. The program
//! `cachewfsd` runs [`Daemon::start`] and handles signals; it brings [`Parts`] that need large
//! libraries. `cachewfs mount --local` runs the daemon in its own process, without parts, with
//! [`Daemon::start_with_token`].

mod app;
mod auth;
mod check_directory;
mod collect_command;
mod config;
mod http;
mod http_client;
mod listener;
mod log_output;
mod metrics;
mod mirror;
mod open_store;
mod parts;
mod periodic_collection;
mod publish;
mod readiness;
mod repository;
mod restore;
mod start_error;
mod traces;

pub use cachewfs_base::{ConfigError, DataDir};
// Every room uses these two crates as its lower floors.
use cachewfs_base as base;
use cachewfs_store as store;
pub use cachewfs_store::{Keep, S3Config, StoreConfig};

pub use app::{Daemon, Reloader, Running};
pub use auth::{
    Action, AuthConfig, AuthError, Decision, DefaultPolicy, NewToken, Policy, PolicyError,
    PolicyInput, ReadPolicy, TokensError,
};
pub use collect_command::CollectionReport;
pub use config::{Config, GitHttpConfig, JobsConfig, LfsMode, LogFormat, PublishConfig};
pub use listener::{TlsConfig, TlsError};
pub use log_output::LogOutput;
pub use mirror::{
    CredentialError, GitConfig, GitVersionError, MirrorsConfig, UpstreamAuthConfig, UpstreamConfig,
};
pub use parts::Parts;
pub use start_error::{CheckWarning, StartError};
pub use traces::{ExportHeaders, TRACE_TARGET, TraceLinks, TracingConfig};
