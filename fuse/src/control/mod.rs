//! The control socket: the CLI asks a mount over a Unix socket, with one JSON value on each line.

mod cache_requests;
mod client;
mod clones;
mod connections;
mod daemon_work;
mod hand_over;
pub mod protocol;
mod server;
mod socket;
mod socket_directory;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientError, ConnectError};
pub(crate) use clones::Clones;
pub use server::BindError;
pub(crate) use server::{Server, open_socket_directory};
pub(crate) use socket::remove_socket;
pub(crate) use socket_directory::SocketDirectory;
pub use socket_directory::SocketDirectoryError;

use std::time::Duration;

/// At most this long passes before a mount that works on a request sends a line.
const HEARTBEAT: Duration = Duration::from_secs(5);
