//! The control socket of a mount: the file that clients find, and the listener behind it.
//!
//! The file is named after the device number of the mount's filesystem. No other filesystem has
//! that number, whatever happens to the mount point: after `umount -l`, a process whose current
//! directory is there keeps the old mount alive beside a new one. In other mount namespaces, other
//! mounts have the same path.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use super::socket_directory::{self, SocketDirectory};
use crate::mount_table::DeviceNumber;

/// The end of the name of each socket.
const SUFFIX: &str = ".sock";
/// The end of the name of a socket that doesn't listen yet.
const STAGED_SUFFIX: &str = ".sock.new";
/// How long such a socket may exist before it counts as left by a killed mount.
const STAGED_AGE: Duration = Duration::from_hours(1);

/// A listening control socket. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct ControlSocket {
    directory: SocketDirectory,
    name: String,
    /// The inode of the file, if it was found after the bind. `None` once another process goes on
    /// listening on the socket.
    ino: Mutex<Option<u64>>,
    pub(super) listener: UnixListener,
}

/// Returns the name of the control socket of the mount with this device number.
pub(super) fn socket_name(device: &DeviceNumber) -> String {
    format!("{}{SUFFIX}", device.0.replace(':', "-"))
}

/// Removes the control socket of this user's dead mount with this device number, if there is one.
pub(crate) fn remove_socket(device: &DeviceNumber) {
    let (path, owner) = socket_directory::of_this_user();
    if let Ok(directory) = SocketDirectory::open(&path, owner) {
        fs::remove_file(directory.join(&socket_name(device))).ok();
    }
}

impl ControlSocket {
    /// Listens on the socket for `device`. Replaces the socket of a killed mount that had the same
    /// number.
    ///
    /// Without `allow_other`, only root and the user who mounts may connect.
    pub(super) fn bind(
        directory: SocketDirectory,
        device: &DeviceNumber,
        allow_other: bool,
    ) -> io::Result<Self> {
        let name = socket_name(device);
        // Clients see the socket only once it listens, so one that refuses them is dead.
        let staged = name.replace(SUFFIX, STAGED_SUFFIX);
        fs::remove_file(directory.join(&staged)).ok();
        let listener = UnixListener::bind(directory.join(&staged))?;
        // Until here the umask decided which users may connect. This is no gap: no connection is
        // accepted before `serve`, and `admit` asks the kernel for the uid of each peer.
        directory.set_mode(&staged, if allow_other { 0o666 } else { 0o600 })?;
        fs::rename(directory.join(&staged), directory.join(&name))?;
        Ok(Self::new(directory, name, listener))
    }

    /// Goes on listening on the socket of another process, which gave the mount away.
    pub(super) fn resume(
        directory: SocketDirectory,
        device: &DeviceNumber,
        listener: OwnedFd,
    ) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(Self::new(directory, socket_name(device), listener))
    }

    fn new(directory: SocketDirectory, name: String, listener: UnixListener) -> Self {
        let ino = ino_of(&directory, &name);
        Self {
            directory,
            name,
            ino: Mutex::new(ino),
            listener,
        }
    }

    /// Returns the listener for another process, which goes on listening on it.
    pub(super) fn listener_for_another(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// Returns the path of the directory with the file.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Leaves the file to the process that goes on listening on the socket.
    pub(super) fn leave_file(&self) {
        *self.ino.lock() = None;
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The kernel may have given the number of an unmounted filesystem to a new mount, and this
        // may be the socket of that mount.
        let ino = self.ino.get_mut();
        if ino.is_some() && *ino == ino_of(&self.directory, &self.name) {
            fs::remove_file(self.directory.join(&self.name)).ok();
        }
    }
}

fn ino_of(directory: &SocketDirectory, name: &str) -> Option<u64> {
    let file = fs::symlink_metadata(directory.join(name));
    file.ok().map(|file| file.ino())
}

/// Removes the sockets of killed mounts from `directory`.
pub(super) async fn remove_dead_sockets(directory: &SocketDirectory) {
    let names = match directory.names() {
        Ok(names) => names,
        Err(error) => return warn!(%error, "Can't list the directory of control sockets: {error}"),
    };
    for name in names {
        let path = directory.join(&name);
        let is_refused = || async {
            let connected = UnixStream::connect(&path).await;
            connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        let is_staged_long = || {
            let metadata = fs::symlink_metadata(&path).ok();
            let changed_at = metadata.and_then(|metadata| metadata.modified().ok());
            let age = changed_at.and_then(|at| at.elapsed().ok());
            name.ends_with(STAGED_SUFFIX) && age.is_some_and(|age| age >= STAGED_AGE)
        };
        if (name.ends_with(SUFFIX) || is_staged_long()) && is_refused().await {
            fs::remove_file(path).ok();
        }
    }
}
