//! [`LfsObject`]: a Git LFS object of upstream.

/// An LFS object to fetch.
#[derive(Clone, Debug)]
pub(crate) struct LfsObject {
    /// The SHA-256 of its bytes, in hexadecimal digits.
    pub(crate) oid: String,
    /// Its length in bytes.
    pub(crate) size: u64,
    /// Its path in a git directory.
    pub(crate) path: String,
}
