//! Publishing the Git LFS objects that the work tree of a commit needs, as an archive of their own.
//!
//! ```text
//! LFS pointers in the tree ─► without the stored objects ─► fetch ─► check ─► store ─► archive
//! ```
//!
//! An LFS archive has a manifest and a pointer of its own. It is made after the snapshot is
//! published, in a task of its own: fetching LFS objects may take an hour and must not hold up
//! publishes. An update may change the mirror meanwhile, which is safe for a reader such as `git
//! upload-pack`.

mod archive;
mod error;
mod list;
mod pointer;

pub(crate) use error::LfsError;
pub(crate) use pointer::LfsOid;
