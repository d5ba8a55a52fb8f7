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

use fuser::{InitFlags, KernelConfig, Session};
use rustix::io::DupFlags;
use serde::{Deserialize, Serialize};

use crate::adapter::{Adapter, READ_AHEAD};

/// The operation of the request that begins a connection.
const FUSE_INIT: u32 = 26;
/// The length of the header of a request, and of the fields of `FUSE_INIT`, in bytes.
const INIT_LEN: usize = 40 + 64;

/// The notification that makes the kernel send requests again (Linux 6.9).
const FUSE_NOTIFY_RESEND: i32 = 7;
/// The length of a notification without fields.
const MESSAGE_LEN: u32 = 16;

/// The version and capabilities that this program and the kernel agreed on when the connection
/// began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Negotiated {
    major: u32,
    minor: u32,
    /// The capabilities that both have, as bits of `InitFlags`.
    flags: u64,
}

impl Negotiated {
    /// Notes the kernel's version, and the capabilities that were asked for and that it has.
    pub(crate) fn new(config: &KernelConfig, agreed: InitFlags) -> Self {
        let version = config.kernel_abi();
        Self {
            major: version.0,
            minor: version.1,
            flags: agreed.bits(),
        }
    }

    /// Returns whether the kernel can send requests again that were read and not answered.
    pub(crate) fn can_ask_again(self) -> bool {
        self.flags & InitFlags::FUSE_HAS_RESEND.bits() != 0
    }

    /// Returns a `FUSE_INIT` of a kernel that has exactly these capabilities.
    fn request(self) -> Vec<u8> {
        let flags = self.flags | InitFlags::FUSE_INIT_EXT.bits();
        let low = u32::try_from(flags & u64::from(u32::MAX)).unwrap_or_default();
        let high = u32::try_from(flags >> 32).unwrap_or_default();
        let len = u32::try_from(INIT_LEN).unwrap_or_default();
        let mut request = Vec::with_capacity(INIT_LEN);
        // The header: length, operation, number of the request. Inode and caller stay 0.
        request.extend([len, FUSE_INIT].map(u32::to_ne_bytes).concat());
        request.extend(1_u64.to_ne_bytes());
        request.resize(40, 0);
        let fields = [self.major, self.minor, READ_AHEAD, low, high];
        request.extend(fields.map(u32::to_ne_bytes).concat());
        request.resize(INIT_LEN, 0);
        request
    }
}

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
