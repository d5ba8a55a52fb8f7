//! The control socket while a new process takes the mount over: who may, and how the socket passes
//! to the new process.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use tokio::net::{UnixListener, UnixStream};

use super::server::{BindError, ControlConnection, Server};
use super::socket_directory::{self, SocketDirectory};
use crate::hand_over::CloneState;

impl Server {
    /// Goes on listening on the socket of another process, which handed its mount over.
    pub(crate) fn resume(
        mount_point: &Path,
        listener: OwnedFd,
        clones: Vec<CloneState>,
    ) -> Result<Self, BindError> {
        let (directory, owner) = socket_directory::of_this_user();
        let directory = SocketDirectory::open(&directory, owner)?;
        let listener = std::os::unix::net::UnixListener::from(listener);
        let listener = Arc::new(UnixListener::from_std(listener)?);
        let server = Self::new(directory, super::socket_name(mount_point), listener);
        server.clones.restore(clones);
        Ok(server)
    }

    /// Leaves new connections waiting, for another process or for the next [`Server::serve`].
    pub(crate) fn pause(&self) {
        let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
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
        self.listener.as_fd().try_clone_to_owned()
    }

    /// Returns the registered clones for another process.
    pub(crate) fn save_clones(&self) -> Vec<CloneState> {
        self.clones.save()
    }
}

impl ControlConnection {
    /// Checks whether a process of the user `uid` may take the mount over. An error is the reason.
    pub(super) fn check_successor(&self, uid: u32) -> Result<(), String> {
        // Not even root: the new process would serve the mount with root's rights, and keep its
        // files as root's.
        if uid != rustix::process::geteuid().as_raw() {
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
