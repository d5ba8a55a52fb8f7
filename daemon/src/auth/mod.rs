//! Who may do what: tokens say who asks, a policy in Rego says what they may do.
//!
//! ```text
//! request ─► PresentedToken (headers) ─► Tokens ─► Subject ─┐
//! URL, method ─► Action, repository ───────────────────┴► Question ─► Policy ─► Decision
//! ```
//!
//! `http/authorize.rs` is the one place that asks; everything here is independent of HTTP but for
//! the headers that carry tokens.

mod access;
mod config;
mod policy;
mod presented;
mod token;
mod tokens;

pub use access::AuthError;
pub(crate) use access::{Access, Caller};
pub use config::AuthConfig;
pub use policy::PolicyError;
pub(crate) use policy::{Action, Decision};
pub(crate) use presented::PresentedToken;
pub use token::NewToken;
pub use tokens::TokensError;
