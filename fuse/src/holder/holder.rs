//! [`Holder`]: the end of the socket that the process of a mount has.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::message::{FILES, send};

/// The message, without files, after which the holder keeps nothing.
const RELEASED: &[u8] = b"released";

/// The socket of the process that keeps the connection to the kernel open if this one is killed.
#[derive(Debug)]
pub struct Holder(OwnedFd);

impl Holder {
    /// Uses a socket of the type `SOCK_SEQPACKET`.
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Tells the holder that another process serves the mount now, or is about to.
    pub(crate) fn release(&self) {
        // It fails if the holder is no more. Then it does nothing either.
        send(&self.0, RELEASED, &[]).ok();
    }

    /// Gives the holder what another process needs to serve the mount.
    pub(crate) fn keep(&self, options: &[u8], files: [BorrowedFd<'_>; FILES]) -> io::Result<()> {
        send(&self.0, options, &files)
    }
}
