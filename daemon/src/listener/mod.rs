//! The connections of clients: accepting them, TLS, and the HTTP server on each.

mod accept;
mod connection;
mod serve;
mod tls;

pub(crate) use accept::{ClientAddress, Listener};
pub(crate) use serve::serve;
pub(crate) use tls::Tls;
pub use tls::{TlsConfig, TlsError};
