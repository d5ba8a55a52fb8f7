//! The control socket: the CLI asks a mount over a Unix socket, with one JSON value on each line.

mod client;
mod clones;
mod connections;
mod hand_over;
pub mod protocol;
mod server;
mod socket_directory;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientError, ConnectError};
pub use server::BindError;
pub(crate) use server::Server;
pub use socket_directory::SocketDirectoryError;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// At most this long passes before a mount that works on a request sends a line.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Returns the path of the control socket of the mount at `mount_point`.
///
/// `mount_point` is an absolute path without symbolic links.
pub(crate) fn socket_path(mount_point: &Path) -> PathBuf {
    socket_directory::of_this_user()
        .0
        .join(socket_name(mount_point))
}

fn socket_name(mount_point: &Path) -> String {
    let digest = blake3::hash(mount_point.as_os_str().as_encoded_bytes());
    format!("{}.sock", digest.to_hex().split_at(16).0)
}
