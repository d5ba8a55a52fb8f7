//! The agreement of this program and the kernel, made when their connection begins.

use fuser::{InitFlags, KernelConfig};
use serde::{Deserialize, Serialize};

/// At most this many bytes are read ahead by the kernel, and around a fault in a mapped file.
///
/// git maps the files that it reads, so a larger value fetches bytes that nobody needs. Without the
/// first look, a cold `git log -1` on git's own repository fetches 1.6 MiB with 32 KiB, and 3.0 MiB
/// with the kernel's default of 128 KiB. Sequential reads don't suffer: `segment/window.rs` widens
/// their requests.
pub(crate) const READ_AHEAD: u32 = 32 << 10;
/// The operation of the request that begins a connection.
const FUSE_INIT: u32 = 26;
/// The length of the header of a request, and of the fields of `FUSE_INIT`, in bytes.
const INIT_LEN: usize = 40 + 64;

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
    pub(crate) fn request(self) -> Vec<u8> {
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
