//! Fetches Git LFS objects from upstream. The daemon does this itself, because git-lfs would follow
//! a response to any server.
//!
//! ```text
//! batch (which URLs) ─► download (with redirects) ─► a file for each object
//!                          └► guard (which addresses)
//! ```
//!
//! No `.lfsconfig` is read: with it, a repository could send the daemon to any server. No error
//! quotes a response, so clients can't use the daemon to explore its network.

mod batch;
mod download;
mod error;
mod fetch;
mod guard;
mod local;
mod object;

pub(crate) use error::LfsFetchError;
pub(crate) use fetch::fetch_lfs_objects;
pub(crate) use object::LfsObject;
