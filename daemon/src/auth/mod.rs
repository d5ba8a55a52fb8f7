//! Authentication and authorization: tokens identify callers, and a policy decides what they may
//! do.
//!
//! ```text
//! request ─► PresentedToken (headers) ─► Tokens ─► Subject ──┐
//! URL, method ─► Action, repository ─────────────────────────┴► PolicyInput ─► Policy ─► Decision
//! ```
//!
//! Only `http/authorize.rs` asks for decisions. Apart from the headers that carry tokens, nothing
//! here depends on HTTP.

mod access;
mod config;
mod policy;
mod presented;
mod token;
mod tokens;

pub use access::AuthError;
pub(crate) use access::{Access, Caller};
pub use config::AuthConfig;
pub use policy::{Action, Decision, DefaultPolicy, Policy, PolicyError, PolicyInput, ReadPolicy};
pub(crate) use presented::PresentedToken;
pub use token::NewToken;
pub use tokens::TokensError;
