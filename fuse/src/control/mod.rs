//! How CLI and mount talk: a Unix socket for each mount, one JSON value a line.

mod client;
mod clones;
mod connections;
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

/// How often a mount says something while it works on a request.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Returns the control socket of the mount at `mount_point`, an absolute path without symbolic links.
pub(crate) fn socket_path(mount_point: &Path) -> PathBuf {
    socket_directory::of_this_user()
        .0
        .join(socket_name(mount_point))
}

fn socket_name(mount_point: &Path) -> String {
    let digest = blake3::hash(mount_point.as_os_str().as_encoded_bytes());
    format!("{}.sock", digest.to_hex().split_at(16).0)
}
