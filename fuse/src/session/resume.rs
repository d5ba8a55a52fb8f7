//! Resumes a session whose `FUSE_INIT` another process has answered.
//!
//! The kernel sends `FUSE_INIT` once for each connection, and fuser's session begins with it. So
//! fuser gets one from this module, over a pair of sockets. Then `/dev/fuse` takes the place of
//! fuser's socket, under the same descriptor number:
//!
//! ```text
//! 1  this module ─ FUSE_INIT ─► socket ═ socket ─► fuser   fuser answers, and is ready
//! 2  dup3(/dev/fuse, fuser's socket)                        nobody has read from /dev/fuse yet
//! 3                             kernel ═ /dev/fuse ═ fuser
//! ```

use std::io::{self, Write as _};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use fuser::Session;
use rustix::io::DupFlags;

use super::adapter::Adapter;
use crate::negotiated::Negotiated;

/// The notification that makes the kernel send requests again (Linux 6.9).
const FUSE_NOTIFY_RESEND: i32 = 7;
/// The length of a notification without fields.
const MESSAGE_LEN: u32 = 16;

/// Returns a session on `connection` that has not read from it yet. `new_session` makes a session
/// from a descriptor, and fuser's handshake is part of that.
pub(super) fn resume(
    connection: &OwnedFd,
    negotiated: Negotiated,
    new_session: impl FnOnce(OwnedFd) -> io::Result<Session<Adapter>>,
) -> io::Result<Session<Adapter>> {
    let (mut kernel, socket) = UnixStream::pair()?;
    kernel.write_all(&negotiated.request())?;
    let session = new_session(socket.into())?;
    put_in_place_of(connection, session.as_fd())?;
    Ok(session)
}

/// Makes the kernel send again all requests that were read from `connection` and not answered.
pub(crate) fn ask_again(connection: &OwnedFd) -> io::Result<()> {
    let mut message = Vec::new();
    message.extend(MESSAGE_LEN.to_ne_bytes());
    message.extend(FUSE_NOTIFY_RESEND.to_ne_bytes());
    message.extend(0_u64.to_ne_bytes());
    rustix::io::write(connection, &message)?;
    Ok(())
}

/// Makes the descriptor number `number` lead to `connection`.
fn put_in_place_of(connection: &OwnedFd, number: BorrowedFd<'_>) -> io::Result<()> {
    #[expect(
        unsafe_code,
        reason = "dup3 takes an owned descriptor, and the session owns this one"
    )]
    // SAFETY: the session owns the descriptor, keeps it open meanwhile, and goes on owning it:
    // `ManuallyDrop` closes nothing. `dup3` leaves the number open, on another file.
    let mut number = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number.as_raw_fd()) });
    rustix::io::dup3(connection, &mut number, DupFlags::CLOEXEC)?;
    Ok(())
}
