//! What the daemon shows to upstreams, per host: a token, or a GitHub App.
//!
//! Secrets are fetched for each command and request, and go to git through its environment. They
//! have no place in arguments, configurations of mirrors, logs and errors.

mod config;
mod github_app;
mod jwt;
mod source;

pub use config::UpstreamAuthConfig;
pub use source::CredentialError;
pub(crate) use source::{Credentials, Login};
