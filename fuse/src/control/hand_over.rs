//! The control socket while a new process takes the mount over: who may, and how the socket passes
//! to the new process.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::process::geteuid;
use tokio::net::UnixStream;

use super::clones::Clones;
use super::server::{BindError, ControlConnection, Server};
use super::socket::ControlSocket;
use super::socket_directory::SocketDirectory;
use crate::hand_over::CloneState;
use crate::mount_table::DeviceNumber;

impl Server {
    /// Goes on listening on the socket of another process, which handed its mount over. The file
    /// of the socket is in `directory`.
    pub(crate) fn resume(
        directory: &Path,
        device: &DeviceNumber,
        listener: OwnedFd,
        clones: Vec<CloneState>,
    ) -> Result<Self, BindError> {
        // Not the directory for new mounts: this process may have another `XDG_RUNTIME_DIR`.
        let directory = SocketDirectory::open(directory, geteuid())?;
        let socket = ControlSocket::resume(directory, device, listener)?;
        let server = Self::new(socket);
        server.clones.restore(clones);
        Ok(server)
    }

    /// Listens in `directory`, for a test.
    #[cfg(test)]
    pub(crate) fn bind_at(directory: &Path, device: &DeviceNumber) -> Self {
        let directory = SocketDirectory::create(&directory.join("sockets"), geteuid());
        Self::bind(directory.unwrap(), device, false).unwrap()
    }

    /// Leaves new connections waiting, for another process or for the next [`Server::serve`].
    pub(crate) fn pause(&self) {
        let paused = self.paused.lock();
        paused.cancel();
    }

    /// Waits for a process that asks to take the mount over. Returns the connection to it.
    pub(crate) async fn successor(&self) -> UnixStream {
        match self.next_successor.lock().await.recv().await {
            Some(successor) => successor,
            // `self` has a sender, so the channel never closes.
            None => std::future::pending().await,
        }
    }

    /// Returns the socket for another process, which goes on listening on it.
    pub(crate) fn listener(&self) -> io::Result<OwnedFd> {
        self.socket.listener_for_another()
    }

    /// Returns the directory with the file of the socket.
    pub(crate) fn socket_directory(&self) -> &Path {
        self.socket.directory()
    }

    /// Leaves the file of the socket to another process, which goes on listening on it.
    pub(crate) fn leave_socket(&self) {
        self.socket.leave_file();
    }

    /// Returns the registered clones.
    pub(crate) fn clones(&self) -> Arc<Clones> {
        Arc::clone(&self.clones)
    }
}

impl ControlConnection {
    /// Checks whether a process of the user `uid` may take the mount over. An error is the reason.
    pub(super) fn check_successor(&self, uid: u32) -> Result<(), String> {
        // Not even root: the new process would serve the mount with root's rights, and keep its
        // files as root's.
        if uid != geteuid().as_raw() {
            return Err("only the user who mounted may replace the mount's process".to_owned());
        }
        if self.repositories.options.secret_token.is_some() {
            return Err(
                "the mount has an embedded daemon (--local), which would end with its process: \
                 unmount it and mount again"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
