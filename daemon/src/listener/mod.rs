//! Connections of clients: accepted, with TLS or without, and where they come from.

mod accept;
mod connection;
mod serve;
mod tls;

pub(crate) use accept::{ClientAddress, Listener};
pub(crate) use serve::serve;
pub(crate) use tls::Tls;
pub use tls::{TlsConfig, TlsError};
