//! How CLI and mount talk: a Unix socket for each mount, one JSON value a line.

mod client;
pub mod protocol;
mod server;

pub use client::{Client, ClientError};
pub(crate) use server::Server;

use std::path::{Path, PathBuf};

/// The control socket of the mount at `mount_point`, an absolute path without symbolic links.
///
/// Below `/run/cachewfs` for a mount of root's, below the user's runtime directory otherwise.
pub fn socket_path(mount_point: &Path) -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return system_socket_path(mount_point);
    }
    let directory = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(
        || std::env::temp_dir().join(format!("cachewfs-{}", rustix::process::geteuid().as_raw())),
        |directory| PathBuf::from(directory).join("cachewfs"),
    );
    directory.join(socket_name(mount_point))
}

/// The control socket of a mount of root's.
fn system_socket_path(mount_point: &Path) -> PathBuf {
    Path::new("/run/cachewfs").join(socket_name(mount_point))
}

fn socket_name(mount_point: &Path) -> String {
    let digest = blake3::hash(mount_point.as_os_str().as_encoded_bytes());
    format!("{}.sock", digest.to_hex().split_at(16).0)
}
