//! The credentials that the daemon sends to upstreams: for each host a token or a GitHub App.
//!
//! Secrets are fetched for each command and request, and git gets them through its environment.
//! They never appear in arguments, in configurations of mirrors, in logs or in errors.

mod config;
mod error;
mod github_app;
mod jwt;
mod login;
mod source;

pub use config::UpstreamAuthConfig;
pub use error::CredentialError;
pub(crate) use login::Login;
pub(crate) use source::Credentials;
